//! What the layers say before it has a type: a tree of values, each knowing where it comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Origin of a value. Later layers win: default, file, environment, flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File {
        /// The file, as it was named.
        path: Arc<Path>,
        /// Line in it, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Env {
        /// Its name.
        name: String,
    },
    /// A file that an environment variable ending in `_FILE` names. Its content is a secret: it is never shown.
    EnvFile {
        /// The variable's name.
        name: String,
        /// The file that it names.
        path: String,
    },
    /// A flag of the command line.
    Flag {
        /// The flag as the user wrote it.
        flag: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env { name } => write!(f, "env {name}"),
            Self::EnvFile { name, path } => write!(f, "env {name} -> {path}"),
            Self::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

impl Origin {
    /// Whether values from here must not be shown.
    pub(crate) const fn is_secret(&self) -> bool {
        match self {
            Self::EnvFile { .. } => true,
            Self::Default | Self::File { .. } | Self::Env { .. } | Self::Flag { .. } => false,
        }
    }
}

/// One value or table.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// The nodes of a table by key.
pub(crate) type Table = BTreeMap<String, Node>;

/// A value as a layer spells it.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A TOML string.
    Text(String),
    /// A TOML integer. Wider than any setting, so that "too large" is a matter of ranges.
    Integer(i128),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array.
    List(Vec<Value>),
    /// A TOML table.
    Table(Table),
    /// A TOML date or time. No setting is one.
    DateTime(String),
    /// What an environment variable or flag says. The setting decides how it is read.
    Word(String),
}

/// Characters of a value that a message quotes.
const SHOWN_CHARS_MAX: usize = 60;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Word(text) => {
                let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                if shown.len() < text.len() {
                    shown.push('…');
                }
                write!(f, "{shown:?}")
            }
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Bool(flag) => flag.fmt(f),
            Self::List(_) => f.write_str("a list"),
            Self::Table(_) => f.write_str("a table"),
            Self::DateTime(moment) => moment.fmt(f),
        }
    }
}

/// The node at `path`, if there is one.
pub(crate) fn find_at_path<'t>(tree: &'t Table, path: &[&str]) -> Option<&'t Node> {
    let (last, way) = path.split_last()?;
    let mut table = tree;
    for key in way {
        let Value::Table(inner) = &table.get(*key)?.value else { return None };
        table = inner;
    }
    table.get(*last)
}

/// Puts `value` at `path`, making the tables on the way. What stood there before, or in the way, is replaced.
pub(crate) fn insert_at_path(tree: &mut Table, path: &[String], value: Value, origin: Origin) {
    let Some((last, way)) = path.split_last() else { return };
    let mut table = tree;
    for key in way {
        let node = table
            .entry(key.clone())
            .or_insert_with(|| Node { value: Value::Table(Table::new()), origin: origin.clone() });
        if !matches!(node.value, Value::Table(_)) {
            *node = Node { value: Value::Table(Table::new()), origin: origin.clone() };
        }
        let Value::Table(inner) = &mut node.value else { return };
        table = inner;
    }
    table.insert(last.clone(), Node { value, origin });
}
