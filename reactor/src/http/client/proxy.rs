//! Which requests go through a proxy. Pure.
//!
//! What it is not: a client of SOCKS proxies, of proxies that are spoken to over TLS, or of automatic configuration.

use std::net::IpAddr;

use data_encoding::BASE64;
use url::Url;

use super::ClientError;

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
}

/// The proxies of a client, and who is reached without one.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies {
    pub(super) http: Option<Proxy>,
    pub(super) https: Option<Proxy>,
    pub(super) exceptions: Vec<Exception>,
}

/// Hosts that are reached without a proxy: a part of `no_proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exception {
    All,
    Address(IpAddr, Option<u16>),
    /// The domain and all below it.
    Domain(String, Option<u16>),
}

impl Proxy {
    /// Reads `http://user:password@host:port`; the scheme may be left out, as in `http_proxy`.
    pub(super) fn parse(text: &str) -> Result<Proxy, ClientError> {
        let bad = || ClientError::InvalidUrl(format!("{text} is no URL of an HTTP proxy"));
        let url = match text.contains("://") {
            true => Url::parse(text),
            false => Url::parse(&format!("http://{text}")),
        };
        let url = url.map_err(|_| bad())?;
        let host = url.host_str().filter(|_| url.scheme() == "http").ok_or_else(bad)?;
        Ok(Proxy {
            host: host.to_owned(),
            port: url.port_or_known_default().ok_or_else(bad)?,
            authorization: authorization_of(&url),
        })
    }
}

impl Proxies {
    /// The proxy for a request to `url`, if there is one.
    pub(super) fn choose(&self, url: &Url) -> Option<&Proxy> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        let proxy = proxy.as_ref()?;
        let host = url.host_str()?;
        let port = url.port_or_known_default()?;
        let is_exempt = self.exceptions.iter().any(|exception| exception.covers(host, port));
        (!is_exempt).then_some(proxy)
    }

    /// Reads `http_proxy`, `https_proxy` and `no_proxy`, given as a look-up.
    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Proxies, ClientError> {
        // `HTTP_PROXY` is left alone: under CGI it is what a client sent as the header "Proxy" (httpoxy).
        let lower_or_upper = |lower: &str, upper: &str| variable(lower).or_else(|| variable(upper));
        let proxy = |text: Option<String>| {
            text.filter(|text| !text.is_empty()).map(|text| Proxy::parse(&text)).transpose()
        };
        Ok(Proxies {
            http: proxy(variable("http_proxy"))?,
            https: proxy(lower_or_upper("https_proxy", "HTTPS_PROXY"))?,
            exceptions: lower_or_upper("no_proxy", "NO_PROXY")
                .map(|text| read_exceptions(&text))
                .unwrap_or_default(),
        })
    }
}

/// Reads `no_proxy`: hosts, domains and addresses, with ports or without, between commas.
pub(super) fn read_exceptions(text: &str) -> Vec<Exception> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(Exception::parse).collect()
}

impl Exception {
    fn parse(entry: &str) -> Exception {
        if entry == "*" {
            return Exception::All;
        }
        if let Ok(address) = entry.trim_matches(['[', ']']).parse() {
            return Exception::Address(address, None);
        }
        let (host, port) = match entry.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => (host, Some(port)),
            _ => (entry, None),
        };
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) => Exception::Address(address, port),
            Err(_) => {
                let domain = host.strip_prefix("*.").or(host.strip_prefix('.')).unwrap_or(host);
                Exception::Domain(domain.to_ascii_lowercase(), port)
            }
        }
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        match self {
            Exception::All => true,
            Exception::Address(address, of_port) => {
                of_port.is_none_or(|of_port| of_port == port)
                    && host.trim_matches(['[', ']']).parse() == Ok(*address)
            }
            Exception::Domain(domain, of_port) => {
                let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
                let below = host.strip_suffix(domain.as_str());
                of_port.is_none_or(|of_port| of_port == port)
                    && below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
            }
        }
    }
}

/// The user name and password in a URL, as a header's value for basic authentication (RFC 7617).
pub(super) fn authorization_of(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decode = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    Some(basic(&decode(url.username()), &decode(url.password().unwrap_or_default())))
}

/// The value of `Authorization` for basic authentication.
pub(super) fn basic(user: &[u8], password: &[u8]) -> String {
    format!("Basic {}", BASE64.encode(&[user, b":", password].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_proxies_by_scheme_and_exceptions() {
        let variables = [
            ("http_proxy", "http://me:pass%20word@proxy.test:3128"),
            ("HTTPS_PROXY", "secure.test"),
            ("HTTP_PROXY", "http://evil.test"),
            ("no_proxy", "localhost, .inner.test,*.star.test, 10.0.0.1, [::1]:8080 ,port.test:81"),
        ];
        let proxies = Proxies::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        });
        let proxies = proxies.unwrap();
        let via = |url: &str| proxies.choose(&Url::parse(url).unwrap()).map(|proxy| proxy.host.as_str());
        assert_eq!(via("http://a.test/"), Some("proxy.test"));
        assert_eq!(via("https://a.test/"), Some("secure.test"));
        for direct in [
            "http://localhost/",
            "http://LOCALHOST:99/",
            "http://inner.test/",
            "https://a.b.inner.test/",
            "http://x.star.test/",
            "http://10.0.0.1/",
            "http://[::1]:8080/",
            "http://port.test:81/",
        ] {
            assert_eq!(via(direct), None, "{direct}");
        }
        for proxied in ["http://notlocalhost/", "http://10.0.0.10/", "http://[::1]/", "http://port.test/"] {
            assert_eq!(via(proxied), Some("proxy.test"), "{proxied}");
        }
        let proxy = proxies.http.unwrap();
        assert_eq!(proxy.authorization.unwrap(), basic(b"me", b"pass word"));
        assert_eq!(proxies.https.unwrap().port, 80);
    }

    #[test]
    fn basic_credentials_are_as_in_the_standards_example() {
        assert_eq!(basic(b"Aladdin", b"open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn what_is_no_http_proxy_is_refused() {
        for text in ["socks5://a:1", "https://a", "http://", "::"] {
            assert!(Proxy::parse(text).is_err(), "{text}");
        }
    }
}
