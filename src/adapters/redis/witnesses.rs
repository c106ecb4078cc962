//! What is known of a log before it is acquired, and whether the server's may be taken for the whole of it.
//!
//! ```text
//! local mark    to the last acknowledged record, but only of this host      DIR/NAMESPACE.LOG.mark
//! second mark   within a second, of whichever host wrote last                where the server's loss does not reach
//! the server    log id, tail, epoch and last writer: what is to be judged
//! ```
//!
//! A mark covers a log when it is of the log's last writer: one of an earlier writer says nothing about what a later
//! one acknowledged.

use std::path::PathBuf;

use orchestrator_kernel::ids::{Epoch, Seq};

use super::entry::LogId;
use super::high_water::Mark;

/// Statement of the server about a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerSays {
    pub(super) log: Option<LogId>,
    pub(super) tail: Seq,
    pub(super) epoch: Epoch,
    /// The token of its last writer; empty when there is no log.
    pub(super) writer: String,
}

/// Statement of the second mark about a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SecondSays {
    /// None is configured.
    NotKept,
    /// It cannot be asked, and why.
    Away(String),
    /// Nobody noted anything.
    Nothing,
    /// A mark of this epoch.
    Known(Mark, Epoch),
}

/// Facts about a log that this host can find out without the server.
#[derive(Clone, Debug)]
pub(super) struct Witnesses {
    pub(super) instance: String,
    pub(super) local: Option<Mark>,
    pub(super) local_path: PathBuf,
    pub(super) second: SecondSays,
    /// Where the second mark is; empty when none is kept.
    pub(super) second_place: String,
}

/// Reason for which the server is not taken at its word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It has less than is known, or another log.
    Regressed(String),
    /// Nobody can tell whether it has all.
    Unknown(String),
    /// As above, but the second mark may tell later.
    Away(String),
}

impl Doubt {
    pub(super) fn doubt_text(&self) -> &str {
        match self {
            Self::Regressed(text) | Self::Unknown(text) | Self::Away(text) => text,
        }
    }
}

/// The operator's word, in every refusal that it overrides.
const ON_TRUST: &str = "or take the server at its word with one start by `run --trust-server`";

const THIS_HOST: &str = "this host";
const SECOND_MARK: &str = "the second mark";

/// The token of a writer: who it is, and which of its acquisitions.
pub(super) fn token_of(instance: &str, random: u64) -> String {
    format!("{instance}:{random:016x}")
}

impl Witnesses {
    /// The mark that the server must have, when it is to be believed.
    ///
    /// # Errors
    ///
    /// [`Doubt`].
    pub(super) fn judge_server(&self, server: &ServerSays) -> Result<Option<Mark>, Doubt> {
        let (mark, _) = self.binding_mark();
        if let Some(mark) = mark
            && (server.log != Some(mark.log) || server.tail < mark.seq)
        {
            return Err(Doubt::Regressed(self.regressed_text(&mark, server, "")));
        }
        let is_local_of_last = self.local.is_some() && self.wrote_last(server);
        match &self.second {
            _ if is_local_of_last => {}
            SecondSays::Known(_, epoch) if server.epoch <= *epoch => {}
            SecondSays::Away(why) => {
                return Err(Doubt::Away(format!(
                    "the second mark ({}) cannot be asked: {why}; this host has no mark of the log's last writer, so \
                     nobody knows how far the log was acknowledged; bring the second mark back, {ON_TRUST}",
                    self.second_place
                )));
            }
            SecondSays::NotKept | SecondSays::Nothing | SecondSays::Known(..) if server.tail == Seq(0) => {}
            SecondSays::NotKept | SecondSays::Nothing | SecondSays::Known(..) => {
                return Err(Doubt::Unknown(self.unknown_text(server)));
            }
        }
        Ok(mark)
    }

    /// The highest epoch that is known to have written; the next one must be above it.
    pub(super) const fn highest_epoch(&self) -> Epoch {
        match self.second {
            SecondSays::Known(_, epoch) => epoch,
            SecondSays::NotKept | SecondSays::Away(_) | SecondSays::Nothing => Epoch(0),
        }
    }

    /// The mark that binds, and who knows it: of the same log that which is further. Where the two know different logs
    /// it is the second: this host may have been away when the operator began another.
    fn binding_mark(&self) -> (Option<Mark>, &'static str) {
        match (&self.second, self.local) {
            (SecondSays::Known(second, _), Some(local))
                if local.log == second.log && second.seq < local.seq =>
            {
                (Some(local), THIS_HOST)
            }
            (SecondSays::Known(second, _), _) => (Some(*second), SECOND_MARK),
            (SecondSays::NotKept | SecondSays::Away(_) | SecondSays::Nothing, local) => (local, THIS_HOST),
        }
    }

    /// Whether nobody acquired the log since this instance did. Tokens of older versions do not say whose they are.
    fn wrote_last(&self, server: &ServerSays) -> bool {
        match server.writer.rsplit_once(':') {
            Some((instance, _)) => instance == self.instance,
            None => true,
        }
    }

    /// The record at the mark is another one.
    pub(super) fn differs_text(&self, mark: &Mark, server: &ServerSays) -> String {
        self.regressed_text(mark, server, ", with another record there")
    }

    fn regressed_text(&self, mark: &Mark, server: &ServerSays, differs: &str) -> String {
        let (_, who) = self.binding_mark();
        let place = match who {
            THIS_HOST => self.local_path.display().to_string(),
            _ => self.second_place.clone(),
        };
        format!(
            "LOG_REGRESSED: it holds {} up to {}, {who} knows {} as acknowledged up to {}{differs} ({place}); bring its \
             data back, {ON_TRUST}",
            log_text(server.log),
            server.tail,
            mark.log,
            mark.seq
        )
    }

    fn unknown_text(&self, server: &ServerSays) -> String {
        let second = match &self.second {
            SecondSays::NotKept => "no second mark is kept (redis.mark)".to_owned(),
            SecondSays::Known(mark, epoch) => format!(
                "the second mark ({}) is of an earlier writer (epoch {epoch}, up to {})",
                self.second_place, mark.seq
            ),
            SecondSays::Nothing | SecondSays::Away(_) => {
                format!("the second mark ({}) is empty", self.second_place)
            }
        };
        let local = match self.local {
            Some(_) => "the mark of this host is of an earlier writer",
            None => "this host has no mark",
        };
        format!(
            "LOG_UNKNOWN: it holds {} up to {} (epoch {}), and nobody knows how far it was acknowledged: {local}, and \
             {second}; start on the host that wrote it last, or with its data directory, {ON_TRUST}",
            log_text(server.log),
            server.tail,
            server.epoch
        )
    }
}

fn log_text(log: Option<LogId>) -> String {
    log.map_or_else(|| "no log".to_owned(), |log| log.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: LogId = LogId(7);

    fn mark(log: LogId, seq: u64) -> Mark {
        Mark { log, seq: Seq(seq), header: None }
    }

    fn known(seq: u64, epoch: u64) -> SecondSays {
        SecondSays::Known(mark(MINE, seq), Epoch(epoch))
    }

    fn witnesses(local: Option<u64>, second: SecondSays) -> Witnesses {
        Witnesses {
            instance: "a".to_owned(),
            local: local.map(|seq| mark(MINE, seq)),
            local_path: PathBuf::from("x.mark"),
            second,
            second_place: "elsewhere".to_owned(),
        }
    }

    fn server(tail: u64, epoch: u64, writer: &str) -> ServerSays {
        ServerSays { log: Some(MINE), tail: Seq(tail), epoch: Epoch(epoch), writer: writer.to_owned() }
    }

    fn word(verdict: &Result<Option<Mark>, Doubt>) -> &'static str {
        match verdict {
            Ok(_) => "starts",
            Err(Doubt::Regressed(_)) => "regressed",
            Err(Doubt::Unknown(_)) => "unknown",
            Err(Doubt::Away(_)) => "away",
        }
    }

    /// Method: each row is a start: local mark, second mark, the server's tail, epoch and last writer, and the verdict.
    #[test]
    fn a_server_is_believed_only_with_a_mark_of_its_last_writer() {
        use SecondSays::{Away, NotKept, Nothing};
        let away = || Away("down".to_owned());
        for (number, (local, second, tail, epoch, writer, expected)) in [
            // One host, no second mark: as ever.
            (Some(5500), NotKept, 5500, 3, "a:1", "starts"),
            (Some(5500), NotKept, 3500, 3, "a:1", "regressed"),
            (Some(5500), NotKept, 5500, 3, "0123456789abcdef", "starts"),
            (Some(5500), NotKept, 8000, 4, "b:1", "unknown"),
            // A fail-over host.
            (None, NotKept, 5500, 3, "a:1", "unknown"),
            (None, Nothing, 5500, 3, "a:1", "unknown"),
            (None, away(), 5500, 3, "a:1", "away"),
            (None, known(5490, 3), 5500, 3, "b:1", "starts"),
            (None, known(5500, 3), 5500, 3, "b:1", "starts"),
            (None, known(5500, 3), 3500, 3, "b:1", "regressed"),
            (None, known(5500, 3), 5500, 4, "b:1", "unknown"),
            // The server forgot who wrote it last, and no record.
            (None, known(5500, 4), 5500, 3, "b:1", "starts"),
            // Upgrade: a local mark, and nobody has noted a second one.
            (Some(5500), Nothing, 5500, 3, "0123456789abcdef", "starts"),
            (Some(5500), Nothing, 3500, 3, "0123456789abcdef", "regressed"),
            // The local mark is the tighter one; an older one is not enough.
            (Some(5500), known(5490, 3), 5495, 3, "a:1", "regressed"),
            (Some(5000), known(8000, 4), 6000, 3, "a:1", "regressed"),
            (Some(5000), known(8000, 4), 8000, 4, "b:1", "starts"),
            (Some(5000), away(), 5000, 3, "a:1", "starts"),
            (Some(5000), away(), 6000, 4, "b:1", "away"),
            // Nothing to lose, as far as anybody knows.
            (None, NotKept, 0, 0, "", "starts"),
            (None, Nothing, 0, 1, "b:1", "starts"),
            (None, away(), 0, 0, "", "away"),
            (None, known(9, 1), 0, 0, "", "regressed"),
        ]
        .into_iter()
        .enumerate()
        {
            let verdict = witnesses(local, second).judge_server(&server(tail, epoch, writer));
            assert_eq!(word(&verdict), expected, "row {number}: {verdict:?}");
            if let Err(doubt) = verdict {
                assert!(
                    doubt.doubt_text().contains("--trust-server"),
                    "row {number}: {}",
                    doubt.doubt_text()
                );
            }
        }
    }

    #[test]
    fn a_log_that_is_not_the_known_one_is_regressed_whatever_its_length() {
        let other = ServerSays { log: Some(LogId(8)), ..server(9000, 9, "b:1") };

        for (local, second) in [(Some(5), SecondSays::NotKept), (None, known(5, 1)), (Some(5), known(5, 9))] {
            let verdict = witnesses(local, second).judge_server(&other);
            assert_eq!(word(&verdict), "regressed", "{verdict:?}");
        }
        // The operator began another log while this host was away.
        let second = SecondSays::Known(mark(LogId(8), 9000), Epoch(9));
        assert_eq!(word(&witnesses(Some(5), second).judge_server(&other)), "starts");
    }

    #[test]
    fn a_refusal_names_both_ends_and_who_knows() {
        let verdict = witnesses(None, known(5500, 3)).judge_server(&server(3500, 3, "b:1"));

        let Err(doubt) = verdict else { panic!("{verdict:?}") };
        for word in ["LOG_REGRESSED", "up to 3500", "up to 5500", "elsewhere", "0000000000000007"] {
            assert!(doubt.doubt_text().contains(word), "{word}: {}", doubt.doubt_text());
        }
    }
}
