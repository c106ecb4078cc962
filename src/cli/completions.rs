//! `orchestrator completions`.

use super::output::print;
use crate::process::exit::Exit;

/// Prints the completions of the command line for `shell`.
#[must_use]
pub fn completions(shell: clap_complete::Shell) -> Exit {
    print(&generate(shell))
}

fn generate(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::definition(), "orchestrator", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_completes_the_commands() {
        use clap::ValueEnum;

        for shell in clap_complete::Shell::value_variants() {
            assert!(generate(*shell).contains("healthcheck"), "{shell}");
        }
    }
}
