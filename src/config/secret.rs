//! URLs that may hold a password: never shown, neither here nor in a message.

use std::fmt;

use super::forms::{Form, quoted, text_of};
use super::tree::Value;

/// A URL whose password is not shown by `Display`, `Debug` or `config show`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The URL as it is, for the client that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return f.write_str(if self.0.is_empty() { "" } else { "***" });
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // Queries can carry credentials too.
        let path = path.split(['?', '#']).next().unwrap_or_default();
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                let user = user.split(':').next().unwrap_or_default();
                write!(f, "{scheme}://{user}:***@{host}{path}")
            }
            None => write!(f, "{scheme}://{authority}{path}"),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

/// A URL of one of these schemes, or nothing where that is allowed.
pub(super) struct Url {
    pub(super) schemes: &'static [&'static str],
    pub(super) may_be_empty: bool,
}

impl Form<SecretUrl> for Url {
    fn parse(&self, value: &Value) -> Result<SecretUrl, String> {
        let text = text_of(value).ok_or("is not text")?;
        if text.is_empty() && self.may_be_empty {
            return Ok(SecretUrl::default());
        }
        let (scheme, rest) = text.split_once("://").ok_or("is not a URL")?;
        if !self.schemes.contains(&scheme) {
            return Err("has another scheme".to_owned());
        }
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
        if rest.is_empty() || rest.starts_with('/') || !rest.chars().all(is_plain) {
            return Err("names no host".to_owned());
        }
        Ok(SecretUrl::from(text))
    }

    fn render(&self, value: &SecretUrl) -> String {
        quoted(&value.to_string())
    }

    fn allowed(&self) -> String {
        let schemes = self.schemes.iter().map(|scheme| format!("{scheme}://host")).collect::<Vec<_>>();
        let empty = if self.may_be_empty { ", \"\" for none" } else { "" };
        format!("{}{empty}", schemes.join(" or "))
    }

    fn hides(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let cases = [
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            ("redis://:canary@host/1", "redis://:***@host/1"),
            ("amqps://me:can@ary@host:5671/%2f?token=canary", "amqps://me:***@host:5671/%2f"),
            ("canary", "***"),
            ("", ""),
        ];
        for (url, shown) in cases {
            let url = SecretUrl::from(url);
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("canary"));
        }
    }

    #[test]
    fn what_is_no_url_of_the_scheme_is_refused() {
        let form = Url { schemes: &["redis", "rediss"], may_be_empty: false };
        let parse = |text: &str| form.parse(&Value::Text(text.to_owned()));

        assert!(parse("rediss://me:secret@host:6380/0").is_ok());
        for text in ["", "host:6379", "http://host", "redis://", "redis:///0", "redis://a b"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
