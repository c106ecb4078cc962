//! Settings that are secrets, or URLs that may hold one: never shown, neither here nor in a message.

use std::fmt;

use reqwest::Url;

use super::forms::{SettingForm, is_line, quote_toml, text_of};
use super::tree::Value;

/// A URL whose password is not shown by `Display`, `Debug` or `config show`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The URL as it is, for the client that connects.
    #[must_use]
    pub fn expose_url(&self) -> &str {
        &self.0
    }

    /// Whether it names a user or password.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.0.split_once("://").is_some_and(|(_, rest)| authority_part(rest).contains('@'))
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
        // A password may hold any of the other delimiters unescaped: everything up to the last @ may be part of it.
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (user.split([':', '/', '?', '#']).next(), place),
            None => (None, rest),
        };
        // Queries can carry credentials too.
        let place = place.split(['?', '#']).next().unwrap_or_default();
        match user {
            Some(user) => write!(f, "{scheme}://{user}:***@{place}"),
            None => write!(f, "{scheme}://{place}"),
        }
    }
}

/// What stands before path, query and fragment.
fn authority_part(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

/// A URL of one of these schemes, or nothing where that is allowed.
pub(crate) struct UrlForm {
    pub(crate) schemes: &'static [&'static str],
    pub(crate) may_be_empty: bool,
}

impl SettingForm<SecretUrl> for UrlForm {
    fn parse_value(&self, value: &Value) -> Result<SecretUrl, String> {
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
        check_address(text)?;
        Ok(SecretUrl::from(text))
    }

    fn render_value(&self, value: &SecretUrl) -> String {
        quote_toml(&value.to_string())
    }

    fn allowed_text(&self) -> String {
        let schemes = self.schemes.iter().map(|scheme| format!("{scheme}://host")).collect::<Vec<_>>();
        let empty = if self.may_be_empty { ", \"\" for none" } else { "" };
        format!("{}{empty}", schemes.join(" or "))
    }

    fn hides_value(&self) -> bool {
        true
    }
}

/// Checks host and port as the clients of all schemes read them.
///
/// # Errors
///
/// What is wrong. Nothing of the URL is repeated.
fn check_address(text: &str) -> Result<(), String> {
    let hint = "in a user or password, each of / ? # @ : is written as %2f %3f %23 %40 %3a";
    let url = Url::parse(text).map_err(|error| format!("cannot be connected to: {error}; {hint}"))?;
    match (url.host_str().is_none_or(str::is_empty), url.port()) {
        (true, _) => Err("names no host".to_owned()),
        (false, Some(0)) => Err("cannot be connected to: port 0".to_owned()),
        (false, _) => Ok(()),
    }
}

/// A secret, or none. Not shown by `Debug` or `config show`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Option<String>);

impl Secret {
    /// The secret, for the client that sends it.
    #[must_use]
    pub fn expose_secret(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Secret(***)" } else { "Secret(none)" })
    }
}

/// A secret that fits a header of HTTP, or `""` for none.
pub(crate) struct HeaderSecret;

impl SettingForm<Secret> for HeaderSecret {
    fn parse_value(&self, value: &Value) -> Result<Secret, String> {
        let text = text_of(value).ok_or("is not text")?;
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("does not fit".to_owned());
        }
        Ok(Secret(Some(text.to_owned()).filter(|text| !text.is_empty())))
    }

    fn render_value(&self, value: &Secret) -> String {
        quote_toml(if value.0.is_some() { "***" } else { "" })
    }

    fn allowed_text(&self) -> String {
        "printable ASCII without space, \"\" for none".to_owned()
    }

    fn hides_value(&self) -> bool {
        true
    }
}

/// A secret of any characters but control characters, or `""` for none.
pub(crate) struct HiddenText;

impl SettingForm<Secret> for HiddenText {
    fn parse_value(&self, value: &Value) -> Result<Secret, String> {
        let text = text_of(value).ok_or("is not text")?;
        if !is_line(text) {
            return Err("does not fit".to_owned());
        }
        Ok(Secret(Some(text.to_owned()).filter(|text| !text.is_empty())))
    }

    fn render_value(&self, value: &Secret) -> String {
        HeaderSecret.render_value(value)
    }

    fn allowed_text(&self) -> String {
        "text without control characters, \"\" for none".to_owned()
    }

    fn hides_value(&self) -> bool {
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
            ("redis://x:pa/can?ary@host/1", "redis://x:***@host/1"),
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
    fn a_token_is_never_shown() {
        let token = HeaderSecret.parse_value(&Value::Text("canary".to_owned())).unwrap();

        assert_eq!(token.expose_secret(), Some("canary"));
        assert_eq!(
            (HeaderSecret.render_value(&token), format!("{token:?}")),
            ("\"***\"".to_owned(), "Secret(***)".to_owned())
        );
        assert_eq!(HeaderSecret.parse_value(&Value::Text(String::new())), Ok(Secret::default()));
    }

    #[test]
    fn credentials_are_seen_only_before_the_host() {
        assert!(SecretUrl::from("http://a@host/").has_credentials());
        assert!(!SecretUrl::from("http://host/a@b?c@d").has_credentials());
    }

    #[test]
    fn what_is_no_url_of_the_scheme_is_refused() {
        let form = UrlForm { schemes: &["redis", "rediss"], may_be_empty: false };
        let parse = |text: &str| form.parse_value(&Value::Text(text.to_owned()));

        assert!(parse("rediss://me:secret@host:6380/0").is_ok());
        for text in ["", "host:6379", "http://host", "redis://", "redis:///0", "redis://a b"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    /// An address that no client can connect to is refused when it is read, whatever the scheme, and nothing of it is
    /// repeated: what looks like a port may be a part of a password.
    #[test]
    fn a_host_or_port_that_cannot_be_is_refused_without_its_secret() {
        const SCHEMES: [&str; 8] =
            ["amqp", "amqps", "redis", "rediss", "http", "https", "postgres", "postgresql"];
        let form = UrlForm { schemes: &SCHEMES, may_be_empty: false };
        for scheme in SCHEMES {
            let parse = |rest: &str| form.parse_value(&Value::Text(format!("{scheme}://{rest}")));
            for good in ["me:s%2fcret@host:65535/x", "[::1]:5672/", "10.0.0.1", "host-name.example:1"] {
                assert!(parse(good).is_ok(), "{scheme} {good}");
            }
            for bad in [
                "me:canary@host:99999/",
                "me:canary@host:65536",
                "me:canary@host:0/",
                "me:canary@host:port/",
                "me:canary@host:-1/",
                "me:canary@:5672/",
                "me:canary@[::1/",
                "me:canary@ho<st/",
                "me:can/ary@host/",
            ] {
                let why = parse(bad).expect_err(bad);
                assert!(!why.contains("canary") && !why.contains("99999"), "{scheme} {bad}: {why}");
            }
        }
    }
}
