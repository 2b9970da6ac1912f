//! What a socket is made of: the public types are the same with the kernel's network and a simulated one.

use super::Descriptor;

/// Where a socket is: with the kernel, or in a simulated world.
pub(super) enum Backing<S> {
    Kernel(Descriptor),
    Simulated(S),
}

impl<S> Backing<S> {
    #[inline]
    pub(super) fn simulated(&self) -> Option<&S> {
        match self {
            Backing::Kernel(_) => None,
            Backing::Simulated(socket) => Some(socket),
        }
    }

    /// # Panics
    ///
    /// For a simulated socket.
    #[inline]
    pub(super) fn descriptor(&self) -> &Descriptor {
        match self {
            Backing::Kernel(descriptor) => descriptor,
            Backing::Simulated(_) => panic!("a simulated socket has no descriptor"),
        }
    }
}
