//! Writes the effective configuration.

use super::forms::quote_toml;
use super::section::Setting;

/// The settings as TOML that can be loaded again; with `with_origins`, each with its origin in a comment.
///
/// Values that may be secrets are hidden.
#[must_use]
pub fn render_settings(settings: &[Setting], with_origins: bool) -> String {
    let lines: Vec<String> =
        settings.iter().map(|setting| format!("{} = {}", toml_key(&setting.key), setting.value)).collect();
    let mut text = String::new();
    let mut section = None;
    for (setting, line) in settings.iter().zip(&lines) {
        if section != Some(&setting.section) {
            let gap = if section.is_some() { "\n" } else { "" };
            text.push_str(&format!("{gap}[{}]\n", setting.section));
            section = Some(&setting.section);
        }
        if with_origins {
            text.push_str(&format!("{line:<48} # {}\n", setting.origin));
        } else {
            text.push_str(&format!("{line}\n"));
        }
    }
    text
}

/// `name` as a TOML key.
fn toml_key(name: &str) -> String {
    let bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare { name.to_owned() } else { quote_toml(name) }
}
