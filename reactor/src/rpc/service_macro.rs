//! `service!`: a trait in, and out come the trait, a client, the methods' marker types and the schema.
//!
//! It goes through the methods one by one, and through each one's arguments, so as to tell streams and payloads from
//! values that are encoded; then it writes everything at once. `__service` is that walk, the others are the pieces.
//!
//! What it is not: a procedural macro. The grammar is fixed, and an error in it is the compiler's plain one.

/// Defines a service once: its trait, its client, and the schema by which releases are compared.
///
/// ```
/// use std::rc::Rc;
/// use reactor::rpc::{CallContext, Never, Service, pair};
///
/// reactor::service! {
///     /// Arithmetic.
///     pub trait Calculator = "calculator" version 1, client CalculatorClient {
///         /// The sum.
///         fn add(&self, a: i64, b: i64) -> Result<i64, Never> = 1 as Add, inline, idempotent;
///         /// The quotient, or why there is none.
///         fn divide(&self, a: i64, b: i64) -> Result<i64, String> = 2 as Divide;
///     }
/// }
///
/// struct Exact;
/// impl Calculator for Exact {
///     fn add(&self, _call: &CallContext, a: i64, b: i64) -> Result<i64, Never> {
///         Ok(a + b)
///     }
///     fn divide(&self, _call: &CallContext, a: i64, b: i64) -> Result<i64, String> {
///         a.checked_div(b).ok_or_else(|| "by zero".to_owned())
///     }
/// }
///
/// reactor::run(|| {
///     let mut service = Service::new();
///     Rc::new(Exact).serve_on(&mut service);
///     let (near, _far) = pair(Service::none(), Rc::new(service));
///     let calculator = CalculatorClient::new(near);
///     assert_eq!(calculator.add(40, 2), Ok(42));
///     assert!(calculator.divide(1, 0).is_err());
/// });
/// ```
///
/// Each method ends with `= NUMBER as Marker`: the number stands for it on the wire, for ever, and the marker is a
/// type that implements [`Method`](crate::rpc::Method). Then may come
/// - `inline`: the handler never suspends, and runs on the connection's reader instead of a coroutine of its own;
/// - `idempotent`: doing it twice does no harm, so a reconnecting client may repeat it;
/// - `requests_up_to(BYTES)`: the longest request, see
///   [`Method`](crate::rpc::Method::REQUEST_SIZE_BYTES_MAX);
/// - `replies_up_to(BYTES)`: the longest reply, see [`Method`](crate::rpc::Method::REPLY_SIZE_BYTES_MAX).
///
/// The arguments are encoded together: none as nothing, one as itself, several as a tuple. An argument of type
/// `Payload` is not encoded but travels beside, as does the second half of a `Result<(T, Payload), E>`.
/// `StreamReceiver<T>` is a stream from the caller, `StreamSender<T>` one to it; a client's method for such a one
/// gives a [`StreamCall`](crate::rpc::StreamCall), which has both and ends with the response.
#[macro_export]
macro_rules! service {
    (
        $(#[$meta:meta])*
        $vis:vis trait $name:ident = $service:literal version $version:literal, client $client:ident {
            $($methods:tt)*
        }
    ) => {
        $crate::__service! {
            @method { [$(#[$meta])*] [$vis] $name $service $version $client } {} $($methods)*
        }
    };
}

/// The walk over the methods; see [`service!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __service {
    // One method whose response has a payload beside it, and one whose has none.
    (@method $head:tt $done:tt
        $(#[$meta:meta])*
        fn $method:ident(&self $(, $($args:tt)*)?) -> Result<($ok:ty, Payload), $err:ty>
            = $id:literal as $marker:ident $(, $flag:ident $(($value:expr))?)*;
        $($rest:tt)*
    ) => {
        $crate::__service! {
            @argument $head $done
            { [$(#[$meta])*] $method $id $marker [$([$flag $(($value))?])*] [$ok] [$err] [($ok, $crate::rpc::Payload)] [payload] }
            [] [] [] [] [] ($($($args)*)?) $($rest)*
        }
    };
    (@method $head:tt $done:tt
        $(#[$meta:meta])*
        fn $method:ident(&self $(, $($args:tt)*)?) -> Result<$ok:ty, $err:ty>
            = $id:literal as $marker:ident $(, $flag:ident $(($value:expr))?)*;
        $($rest:tt)*
    ) => {
        $crate::__service! {
            @argument $head $done
            { [$(#[$meta])*] $method $id $marker [$([$flag $(($value))?])*] [$ok] [$err] [$ok] [] }
            [] [] [] [] [] ($($($args)*)?) $($rest)*
        }
    };

    // One argument: a stream from the caller, a stream to it, a payload, or a value.
    (@argument $head:tt $done:tt $method:tt [$($all:tt)*] $plain:tt [] $down:tt $payload:tt
        ($arg:ident: StreamReceiver<$item:ty> $(, $($args:tt)*)?) $($rest:tt)*
    ) => {
        $crate::__service! {
            @argument $head $done $method [$($all)* ($arg: $crate::rpc::StreamReceiver<$item>)]
            $plain [$arg $item] $down $payload ($($($args)*)?) $($rest)*
        }
    };
    (@argument $head:tt $done:tt $method:tt [$($all:tt)*] $plain:tt $up:tt [] $payload:tt
        ($arg:ident: StreamSender<$item:ty> $(, $($args:tt)*)?) $($rest:tt)*
    ) => {
        $crate::__service! {
            @argument $head $done $method [$($all)* ($arg: $crate::rpc::StreamSender<$item>)]
            $plain $up [$arg $item] $payload ($($($args)*)?) $($rest)*
        }
    };
    (@argument $head:tt $done:tt $method:tt [$($all:tt)*] $plain:tt $up:tt $down:tt []
        ($arg:ident: Payload $(, $($args:tt)*)?) $($rest:tt)*
    ) => {
        $crate::__service! {
            @argument $head $done $method [$($all)* ($arg: $crate::rpc::Payload)]
            $plain $up $down [$arg] ($($($args)*)?) $($rest)*
        }
    };
    (@argument $head:tt $done:tt $method:tt [$($all:tt)*] [$($plain:tt)*] $up:tt $down:tt $payload:tt
        ($arg:ident: $type:ty $(, $($args:tt)*)?) $($rest:tt)*
    ) => {
        $crate::__service! {
            @argument $head $done $method [$($all)* ($arg: $type)]
            [$($plain)* ($arg: $type)] $up $down $payload ($($($args)*)?) $($rest)*
        }
    };
    (@argument $head:tt {$($done:tt)*} {$($method:tt)*} $all:tt $plain:tt $up:tt $down:tt $payload:tt
        () $($rest:tt)*
    ) => {
        $crate::__service! {
            @method $head { $($done)* { $($method)* $all $plain $up $down $payload } } $($rest)*
        }
    };

    // All methods are taken apart: write everything.
    (@method { [$(#[$meta:meta])*] [$vis:vis] $name:ident $service:literal $version:literal $client:ident } {
        $({
            [$(#[$about:meta])*] $method:ident $id:literal $marker:ident [$($flag:tt)*]
            [$ok:ty] [$err:ty] [$returned:ty] $beside:tt
            [$(($all:ident: $all_type:ty))*] [$(($plain:ident: $plain_type:ty))*] $up:tt $down:tt $payload:tt
        })*
    }) => {
        $(#[$meta])*
        $vis trait $name {
            $(
                $(#[$about])*
                #[allow(clippy::too_many_arguments, clippy::missing_errors_doc)]
                fn $method(
                    &self,
                    call: &$crate::rpc::CallContext,
                    $($all: $all_type),*
                ) -> ::std::result::Result<$returned, $err>;
            )*

            /// Enters the service's methods into a table of handlers, which keep this alive.
            ///
            /// # Panics
            /// If one of their numbers is taken there.
            #[allow(unused_parens)]
            fn serve_on(self: ::std::rc::Rc<Self>, service: &mut $crate::rpc::Service)
            where
                Self: Sized + 'static,
            {
                $(
                    let own = self.clone();
                    $crate::__service_handler! {
                        service own $method $marker [$($all)*] ($($plain),*) $up $down $payload $beside
                    }
                )*
            }

            /// Lets the service share the connections of another under its own name: a client finds it with `by_name`.
            ///
            /// # Panics
            /// If the name is taken there, or is none: see [`ServiceName`]($crate::rpc::ServiceName).
            fn share_on(self: ::std::rc::Rc<Self>, service: &mut $crate::rpc::Service)
            where
                Self: Sized + 'static,
            {
                let mut own = $crate::rpc::Service::new();
                self.serve_on(&mut own);
                service.share($crate::rpc::ServiceName::from_static($service), ::std::rc::Rc::new(own));
            }
        }

        $(
            #[doc = concat!("The method `", stringify!($method), "` of [`", stringify!($name), "`].")]
            #[derive(Clone, Copy, Debug)]
            $vis struct $marker;

            #[allow(unused_parens)]
            impl $crate::rpc::Method for $marker {
                const ID: u32 = $id;
                const NAME: &'static str = concat!($service, ".", stringify!($method));
                const INLINE: bool = $crate::rpc::Flags::NONE$(.and($crate::__service_flag!($flag)))*.inline;
                const IDEMPOTENT: bool =
                    $crate::rpc::Flags::NONE$(.and($crate::__service_flag!($flag)))*.idempotent;
                const REQUEST_SIZE_BYTES_MAX: ::std::option::Option<usize> =
                    $crate::rpc::Flags::NONE$(.and($crate::__service_flag!($flag)))*.request_bytes_max;
                const REPLY_SIZE_BYTES_MAX: usize =
                    $crate::rpc::Flags::NONE$(.and($crate::__service_flag!($flag)))*.reply_bytes_max;
                type Request = ($($plain_type),*);
                type Response = $ok;
                type Error = $err;
            }

            $crate::__service_stream! { $marker $up $down }
        )*

        #[doc = concat!("Calls the methods of [`", stringify!($name), "`] at a peer.")]
        #[derive(Clone, Debug)]
        $vis struct $client<C = $crate::rpc::Connection> {
            caller: C,
            options: $crate::rpc::CallOptions,
        }

        impl $client {
            /// The service's schema, to compare with the released one.
            pub fn schema() -> $crate::rpc::Schema {
                $crate::rpc::Schema {
                    service: $service,
                    version: $version,
                    methods: vec![$($crate::rpc::MethodSchema {
                        id: $id,
                        name: stringify!($method),
                        arguments: &[$((stringify!($all), stringify!($all_type))),*],
                        response: stringify!($returned),
                        error: stringify!($err),
                    }),*],
                }
            }
        }

        impl<C: $crate::rpc::Caller> $client<$crate::rpc::Named<C>> {
            /// A client of the service of that name, which shares the connection with others.
            ///
            /// # Panics
            /// If the service's name is none: see [`ServiceName`]($crate::rpc::ServiceName).
            pub fn by_name(caller: C) -> Self {
                let name = $crate::rpc::ServiceName::from_static($service);
                $client::new($crate::rpc::Named::new(caller, name))
            }
        }

        impl<C: $crate::rpc::Caller> $client<C> {
            /// A client that calls through `caller`, with the default options.
            pub fn new(caller: C) -> Self {
                $client { caller, options: $crate::rpc::CallOptions::default() }
            }

            /// The same client with other options for its calls.
            #[must_use]
            pub fn with(&self, options: $crate::rpc::CallOptions) -> Self
            where
                C: Clone,
            {
                $client { caller: self.caller.clone(), options }
            }

            $(
                $crate::__service_call! {
                    [$(#[$about])*] $method $marker [$returned] [$err]
                    ($($plain: $plain_type),*) $up $down $payload $beside
                }
            )*
        }
    };
}

/// What a word behind a method adds to what is known of it; one that is not listed is an error.
#[doc(hidden)]
#[macro_export]
macro_rules! __service_flag {
    ([inline]) => {
        $crate::rpc::Flags { inline: true, ..$crate::rpc::Flags::NONE }
    };
    ([idempotent]) => {
        $crate::rpc::Flags { idempotent: true, ..$crate::rpc::Flags::NONE }
    };
    ([requests_up_to ($bytes:expr)]) => {
        $crate::rpc::Flags {
            request_bytes_max: ::std::option::Option::Some($bytes),
            ..$crate::rpc::Flags::NONE
        }
    };
    ([replies_up_to ($bytes:expr)]) => {
        $crate::rpc::Flags { reply_bytes_max: $bytes, ..$crate::rpc::Flags::NONE }
    };
}

/// Enters one method into the table of handlers.
#[doc(hidden)]
#[macro_export]
macro_rules! __service_handler {
    ($service:ident $own:ident $method:ident $marker:ident [$($all:ident)*] ($($plain:ident),*) [] [] [] $beside:tt) => {
        $service.on::<$marker>(move |call, ($($plain),*), _| {
            $crate::__service_beside!($beside $own.$method(call, $($all),*))
        });
    };
    ($service:ident $own:ident $method:ident $marker:ident [$($all:ident)*] ($($plain:ident),*) [] []
        [$payload:ident] $beside:tt
    ) => {
        $service.on::<$marker>(move |call, ($($plain),*), $payload| {
            $crate::__service_beside!($beside $own.$method(call, $($all),*))
        });
    };
    ($service:ident $own:ident $method:ident $marker:ident [$($all:ident)*] ($($plain:ident),*)
        [$up:ident $up_type:ty] [] [] []
    ) => {
        $service.on_stream::<$marker>(move |call, ($($plain),*), $up, _| $own.$method(call, $($all),*));
    };
    ($service:ident $own:ident $method:ident $marker:ident [$($all:ident)*] ($($plain:ident),*)
        [] [$down:ident $down_type:ty] [] []
    ) => {
        $service.on_stream::<$marker>(move |call, ($($plain),*), _, $down| $own.$method(call, $($all),*));
    };
    ($service:ident $own:ident $method:ident $marker:ident [$($all:ident)*] ($($plain:ident),*)
        [$up:ident $up_type:ty] [$down:ident $down_type:ty] [] []
    ) => {
        $service.on_stream::<$marker>(move |call, ($($plain),*), $up, $down| $own.$method(call, $($all),*));
    };
}

/// A result with a payload beside it, where the method gives none.
#[doc(hidden)]
#[macro_export]
macro_rules! __service_beside {
    ([payload] $result:expr) => {
        $result
    };
    ([] $result:expr) => {
        $result.map(|response| (response, $crate::rpc::Payload::new()))
    };
}

/// What a method streams, if it does.
#[doc(hidden)]
#[macro_export]
macro_rules! __service_stream {
    ($marker:ident [] []) => {};
    ($marker:ident [$up:ident $up_type:ty] []) => {
        impl $crate::rpc::StreamMethod for $marker {
            type Up = $up_type;
            type Down = $crate::rpc::Never;
        }
    };
    ($marker:ident [] [$down:ident $down_type:ty]) => {
        impl $crate::rpc::StreamMethod for $marker {
            type Up = $crate::rpc::Never;
            type Down = $down_type;
        }
    };
    ($marker:ident [$up:ident $up_type:ty] [$down:ident $down_type:ty]) => {
        impl $crate::rpc::StreamMethod for $marker {
            type Up = $up_type;
            type Down = $down_type;
        }
    };
}

/// One method of the client.
#[doc(hidden)]
#[macro_export]
macro_rules! __service_call {
    ([$(#[$about:meta])*] $method:ident $marker:ident [$returned:ty] [$err:ty]
        ($($plain:ident: $plain_type:ty),*) [] [] [$($payload:ident)?] $beside:tt
    ) => {
        $(#[$about])*
        ///
        /// # Errors
        /// [`CallError`]($crate::rpc::CallError) says who must act.
        ///
        /// # Suspends
        /// Until the answer is there, or the time of the options is over.
        #[allow(unused_parens, clippy::too_many_arguments)]
        pub fn $method(
            &self,
            $($plain: $plain_type,)*
            $($payload: $crate::rpc::Payload)?
        ) -> ::std::result::Result<$returned, $crate::rpc::CallError<$err>> {
            let payload = $crate::__service_payload!($($payload)?);
            let answer = self.caller.call_with::<$marker>(&($($plain),*), payload, &self.options)?;
            Ok($crate::__service_answer!($beside answer))
        }
    };
    ([$(#[$about:meta])*] $method:ident $marker:ident [$returned:ty] [$err:ty]
        ($($plain:ident: $plain_type:ty),*) $up:tt $down:tt [] []
    ) => {
        $(#[$about])*
        ///
        /// # Errors
        /// [`CallError`]($crate::rpc::CallError) says who must act.
        ///
        /// # Suspends
        /// Until the call may begin: the answer is awaited with the stream's end.
        #[allow(unused_parens, clippy::too_many_arguments)]
        pub fn $method(
            &self,
            $($plain: $plain_type,)*
        ) -> ::std::result::Result<$crate::rpc::StreamCall<$marker>, $crate::rpc::CallError<$err>> {
            self.caller.open_with::<$marker>(&($($plain),*), &self.options)
        }
    };
}

/// The payload of a call, or an empty one.
#[doc(hidden)]
#[macro_export]
macro_rules! __service_payload {
    () => {
        $crate::rpc::Payload::new()
    };
    ($payload:ident) => {
        $payload
    };
}

/// An answer with its payload, or without.
#[doc(hidden)]
#[macro_export]
macro_rules! __service_answer {
    ([payload] $answer:expr) => {
        $answer
    };
    ([] $answer:expr) => {
        $answer.0
    };
}
