//! `orchestrator healthcheck`: one HTTP request, so that a container needs neither shell nor curl.

use super::HealthcheckArgs;
use super::ask::{Ask, HttpAnswer, ask_http};
use super::output::{print_answer, print_complaint};
use crate::process::exit::ProcessExit;

/// Bytes of the answer that are shown.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Asks the service and says what it answered: [`ProcessExit::Ok`] for status 200, else [`ProcessExit::Unavailable`].
#[must_use]
pub fn run_healthcheck(args: &HealthcheckArgs) -> ProcessExit {
    super::block_on(ask_readiness(args))
}

async fn ask_readiness(HealthcheckArgs { url, timeout }: &HealthcheckArgs) -> ProcessExit {
    let question = Ask { url, json: None, timeout: *timeout, answer_bytes_max: ANSWER_BYTES_MAX };
    match ask_http(&question).await {
        Ok(HttpAnswer { status: 200, body }) => print_answer(&format!("{}\n", body.trim_end())),
        Ok(HttpAnswer { status, body }) => {
            print_complaint(&format!("not ready: status {status}: {}", body.trim_end()));
            ProcessExit::Unavailable
        }
        Err(error) => {
            print_complaint(&format!("cannot ask {url}: {error}"));
            ProcessExit::Unavailable
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::*;

    /// Asks a server that reads one request and answers `pieces`, with a pause before each.
    fn check_ask(pieces: &'static [&'static str], pause: Duration) -> ProcessExit {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap()).parse().unwrap();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = peer.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            for piece in pieces {
                std::thread::sleep(pause);
                if peer.write_all(piece.as_bytes()).is_err() {
                    break;
                }
            }
        });
        crate::process::tls::install_crypto();
        let exit = run_healthcheck(&HealthcheckArgs { url, timeout: Duration::from_millis(500) });
        server.join().unwrap();
        exit
    }

    #[test]
    fn only_status_200_is_ready() {
        for (answer, exit) in [
            (&["HTTP/1.1 200 OK\r\n\r\nready"][..], ProcessExit::Ok),
            (&["HTTP/1.1 503 Service Unavailable\r\n\r\nno"], ProcessExit::Unavailable),
            (
                &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\n\r\n"],
                ProcessExit::Ok,
            ),
            (&["HTTP/1.1 302 Found\r\nLocation: /livez\r\n\r\n"], ProcessExit::Unavailable),
            (&["HTTP/1.1 2000 OK\r\n\r\n"], ProcessExit::Unavailable),
            (&["SSH-2.0-OpenSSH"], ProcessExit::Unavailable),
            (&[], ProcessExit::Unavailable),
        ] {
            assert_eq!(check_ask(answer, Duration::ZERO), exit, "{answer:?}");
        }
    }

    #[test]
    fn a_server_that_trickles_is_given_up_in_time() {
        let begun = Instant::now();

        let exit = check_ask(&["H"; 100], Duration::from_millis(50));

        assert_eq!(exit, ProcessExit::Unavailable);
        assert!(begun.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn nobody_there_is_unavailable() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = format!("http://{free}").parse().unwrap();
        crate::process::tls::install_crypto();

        assert_eq!(
            run_healthcheck(&HealthcheckArgs { url, timeout: Duration::from_secs(1) }),
            ProcessExit::Unavailable
        );
    }
}
