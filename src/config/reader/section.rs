//! Reads one section: each setting is named once, and that one line gives it its type, its range, its place in
//! `config show` and its name to the check for unknown keys.

use super::forms::SettingForm;
use super::tree::{Node, Origin, Table, Value};
use super::violation::{Violation, nearest_key};

/// One effective setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its section, for example `engine.process`.
    pub section: String,
    /// Its key in the section.
    pub key: String,
    /// Its value as TOML; `"<hidden>"` when it may be a secret.
    pub value: String,
    /// What it may be.
    pub allowed: String,
    /// Where the value comes from.
    pub origin: Origin,
}

/// Findings of reading: violations, and effective settings.
#[derive(Debug, Default)]
pub(crate) struct ReadReport {
    pub(crate) violations: Vec<Violation>,
    pub(crate) settings: Vec<Setting>,
}

impl ReadReport {
    /// Where the value at `path` comes from.
    fn origin_of(&self, path: &str) -> Origin {
        let setting = self.settings.iter().find(|setting| {
            path.strip_prefix(&setting.section).and_then(|rest| rest.strip_prefix('.')) == Some(&setting.key)
        });
        setting.map_or(Origin::Default, |setting| setting.origin.clone())
    }

    /// Reports that a rule over several settings is broken, at the first of `paths`.
    ///
    /// Keeps quiet when one of them is already known to be wrong: its default stands in for it then, and what follows
    /// from that would only confuse.
    pub(crate) fn check_rule(&mut self, paths: &[&str], holds: bool, what: String, allowed: &str) {
        let (false, Some(first)) = (holds, paths.first()) else { return };
        if self.violations.iter().any(|violation| paths.contains(&violation.path.as_str())) {
            return;
        }
        // The user changed one of them: that is the place to show.
        let origin = paths.iter().map(|path| self.origin_of(path)).find(|origin| *origin != Origin::Default);
        self.violations.push(Violation {
            path: (*first).to_owned(),
            what,
            allowed: allowed.to_owned(),
            origin: origin.unwrap_or(Origin::Default),
        });
    }
}

/// A section being read.
pub(crate) struct Section<'a> {
    path: String,
    nodes: Option<&'a Table>,
    /// Whether something else stands where the section should: what it lacks is not worth reporting then.
    misplaced: bool,
    origin: Origin,
    known: Vec<&'static str>,
    report: &'a mut ReadReport,
}

impl<'a> Section<'a> {
    /// Reads the whole tree. `read` names the top-level sections.
    pub(crate) fn read_tree<T>(
        tree: &'a Table,
        report: &'a mut ReadReport,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut root = Section {
            path: String::new(),
            nodes: Some(tree),
            misplaced: false,
            origin: Origin::Default,
            known: Vec::new(),
            report,
        };
        let value = read(&mut root);
        root.report_unknown();
        value
    }

    /// Reads the section `key` in this one. Keys in it that `read` does not name are reported.
    pub(crate) fn read_section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        self.known.push(key);
        self.read_inner(key, read)
    }

    /// Reads the sections in this one whose names the user chooses, or those of `defaults` when there are none.
    pub(crate) fn named_sections<'n>(
        &mut self,
        is_name: fn(&str) -> bool,
        allowed: &str,
        defaults: impl Iterator<Item = &'n String>,
        mut read: impl FnMut(&str, &mut Section<'_>),
    ) {
        let given: Vec<&String> = self.nodes.into_iter().flat_map(Table::keys).collect();
        let names = if given.is_empty() { defaults.collect() } else { given };
        for name in names {
            if is_name(name) {
                self.read_inner(name, |section| read(name, section));
            } else {
                self.refuse_key(name, format!("{name:?} cannot be a name"), allowed);
            }
        }
        self.ignore_rest();
    }

    /// Names of what a layer gives in this section.
    pub(crate) fn given_keys(&self) -> Vec<&'a str> {
        self.nodes.into_iter().flat_map(Table::keys).map(String::as_str).collect()
    }

    /// Reads the sections of these names in their order, whether a layer gives them or not. Any other key in this
    /// section is refused, in the words `refusal` and `allowed`.
    pub(crate) fn read_sections(
        &mut self,
        names: &[&str],
        (refusal, allowed): (&str, &str),
        mut read: impl FnMut(&str, &mut Section<'_>),
    ) {
        for strange in self.given_keys().into_iter().filter(|given| !names.contains(given)) {
            self.refuse_key(strange, format!("{strange:?} {refusal}"), allowed);
        }
        for name in names {
            self.read_inner(name, |section| read(name, section));
        }
        self.ignore_rest();
    }

    fn read_inner<T>(&mut self, key: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let node = self.nodes.and_then(|nodes| nodes.get(key));
        let nodes = node.and_then(|node| match &node.value {
            Value::Table(nodes) => Some(nodes),
            value => {
                let what = format!("is {value}, not a section");
                self.refuse_key(key, what, "a table of settings");
                None
            }
        });
        // What is missing in a section that nobody wrote is missing where somebody wrote of it.
        let origin = node.map_or_else(|| self.origin.clone(), |node| node.origin.clone());
        let misplaced = node.is_some() && nodes.is_none();
        let mut section = Section {
            path: self.path_of(key),
            nodes,
            misplaced,
            origin,
            known: Vec::new(),
            report: &mut *self.report,
        };
        let value = read(&mut section);
        section.report_unknown();
        value
    }

    /// Reads the setting `key` into `slot`, which holds its default.
    pub(crate) fn read_value<T>(&mut self, key: &'static str, slot: &mut T, form: &impl SettingForm<T>) {
        if let Some(value) = self.read_given(key, form) {
            *slot = value;
        }
        self.note_setting(key, form.render_value(slot), form.allowed_text());
    }

    /// Reads a setting that has no default; `why` completes "is missing".
    pub(crate) fn read_required<T>(
        &mut self,
        key: &'static str,
        why: &str,
        form: &impl SettingForm<T>,
    ) -> Option<T> {
        let present = self.node_at(key).is_some();
        let value = self.read_given(key, form);
        match &value {
            Some(value) => self.note_setting(key, form.render_value(value), form.allowed_text()),
            None if present || self.misplaced => {}
            None => self.refuse_key(key, format!("is missing: {why}"), &form.allowed_text()),
        }
        value
    }

    /// Reads a setting that has its default only where `default` gives one; `why` completes "is missing".
    pub(crate) fn read_defaulted<T>(
        &mut self,
        key: &'static str,
        default: Option<T>,
        why: &str,
        form: &impl SettingForm<T>,
    ) -> Option<T> {
        match default {
            Some(mut value) => {
                self.read_value(key, &mut value, form);
                Some(value)
            }
            None => self.read_required(key, why, form),
        }
    }

    /// Reads a setting that only counts in another mode: giving it here is a violation.
    pub(crate) fn refuse_inapplicable(&mut self, key: &'static str, why: &str) {
        self.known.push(key);
        if self.node_at(key).is_some() {
            self.refuse_key(key, format!("has no effect here: {why}"), "remove it");
        }
    }

    /// Reads all settings of this section, whose keys the user chooses and whose values may be secrets.
    pub(crate) fn hidden_texts(
        &mut self,
        is_key: fn(&str) -> bool,
        form: &impl SettingForm<String>,
    ) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        for (key, node) in self.nodes.into_iter().flatten() {
            if !is_key(key) {
                self.refuse_key(
                    key,
                    format!("{key:?} cannot be a name here"),
                    "a name without '=', quote or control character",
                );
                continue;
            }
            match form.parse_value(&node.value) {
                Ok(text) => {
                    texts.push((key.clone(), text));
                    self.note_setting(key, "\"<hidden>\"".to_owned(), form.allowed_text());
                }
                Err(_) => self.refuse_key(key, "is not text".to_owned(), &form.allowed_text()),
            }
        }
        self.ignore_rest();
        texts
    }

    /// Names a key that another branch reads.
    pub(crate) fn expect_key(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// Keys that were not read yet are no violations.
    pub(crate) fn ignore_rest(&mut self) {
        self.nodes = None;
    }

    /// Whether nothing is known to be wrong with `key`.
    pub(crate) fn is_accepted(&self, key: &str) -> bool {
        let path = self.path_of(key);
        !self.misplaced && self.report.violations.iter().all(|violation| violation.path != path)
    }

    /// Whether a layer gives `key`.
    pub(crate) fn has_key(&self, key: &str) -> bool {
        self.node_at(key).is_some()
    }

    /// Reports that `key` is wrong.
    pub(crate) fn refuse_key(&mut self, key: &str, what: String, allowed: &str) {
        let origin = self.node_at(key).map_or_else(|| self.origin.clone(), |node| node.origin.clone());
        let path = self.path_of(key);
        self.report.violations.push(Violation { path, what, allowed: allowed.to_owned(), origin });
    }

    fn read_given<T>(&mut self, key: &'static str, form: &impl SettingForm<T>) -> Option<T> {
        self.known.push(key);
        let node = self.node_at(key)?;
        match form.parse_value(&node.value) {
            Ok(value) => Some(value),
            Err(reason) => {
                let shown = if node.origin.is_secret() {
                    "the file's content".to_owned()
                } else if form.hides_value() {
                    "the value".to_owned()
                } else {
                    node.value.to_string()
                };
                self.refuse_key(key, format!("{shown} {reason}"), &form.allowed_text());
                None
            }
        }
    }

    fn note_setting(&mut self, key: &str, value: String, allowed: String) {
        let origin = self.node_at(key).map_or(Origin::Default, |node| node.origin.clone());
        let value = if origin.is_secret() { "\"<hidden>\"".to_owned() } else { value };
        let section = self.path.clone();
        self.report.settings.push(Setting { section, key: key.to_owned(), value, allowed, origin });
    }

    fn node_at(&self, key: &str) -> Option<&'a Node> {
        self.nodes.and_then(|nodes| nodes.get(key))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn report_unknown(&mut self) {
        let Some(nodes) = self.nodes else { return };
        let kind = if self.path.is_empty() { "section" } else { "key" };
        for key in nodes.keys().filter(|key| !self.known.contains(&key.as_str())).collect::<Vec<_>>() {
            let (what, allowed) = match nearest_key(key, self.known.iter().copied()) {
                Some(meant) => (format!("is not a {kind}; did you mean `{meant}`?"), meant.to_owned()),
                None => (format!("is not a {kind}"), self.known.join(", ")),
            };
            self.refuse_key(key, what, &allowed);
        }
    }
}
