//! `orchestrator completions`.

use super::output::print_answer;
use crate::process::exit::ProcessExit;

/// Prints the completions of the command line for `shell`.
#[must_use]
pub fn print_completions(shell: clap_complete::Shell) -> ProcessExit {
    print_answer(&generate_script(shell))
}

fn generate_script(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command_definition(), "orchestrator", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_completes_the_commands() {
        use clap::ValueEnum;

        for shell in clap_complete::Shell::value_variants() {
            assert!(generate_script(*shell).contains("healthcheck"), "{shell}");
        }
    }
}
