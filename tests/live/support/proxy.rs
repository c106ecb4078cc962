//! A TCP proxy on loopback that brings faults between a client and a server while they talk.
//!
//! ```text
//! client ── ToServer ──▶ proxy ── ToServer ──▶ server        each direction: read ─▶ line (due times) ─▶ write
//!        ◀── ToClient ──       ◀── ToClient ──
//! ```
//!
//! It runs on a thread of its own, so a test that blocks its runtime does not block the proxy.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Bytes of one direction that may wait for their time; beyond it nothing is read, as with a full socket buffer.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes read at once: small, so that a throttled line is smooth.
const CHUNK_BYTES: usize = 16 << 10;

/// Where bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Every byte arrives this much later; the order and the rate stay.
    Latency(Duration),
    /// So many bytes a second in each direction.
    Throttle(u64),
    /// Nothing is read and nothing is delivered, but nothing is lost either: what is under way arrives after the fault.
    Stall,
    /// Everything is read and thrown away, nothing is answered. A connection that lost bytes so is reset afterwards.
    BlackHole,
    /// The connection is reset (RST) on both sides; bytes under way are lost.
    Reset,
    /// This direction ends (FIN); the other one goes on.
    HalfClose(Direction),
    /// After so many further bytes in this direction the connection is reset on both sides; with 0, in place of the
    /// first byte.
    CutAfter(Direction, u64),
    /// New connections are refused. Existing ones do not notice.
    Refuse,
}

/// Which connections a fault meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Existing,
    New,
    All,
}

struct Command {
    fault: Fault,
    reach: Reach,
    done: SyncSender<()>,
}

/// The proxy. Ends, and closes its connections, when it is dropped.
pub(crate) struct FaultProxy {
    port: u16,
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// A proxy without a fault to `target_port` on loopback. The target may be down: connections are then reset.
    pub(crate) fn to(target_port: u16) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (commands, received) = mpsc::unbounded_channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let door = Door::Open(TcpListener::from_std(listener).unwrap());
                let accept = Accept { door, address, target_port, new: Fault::None, connections: Vec::new() };
                accept.run(received).await;
            });
        });
        Self { port: address.port(), commands: Some(commands), thread: Some(thread) }
    }

    /// Where clients connect, on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Puts a fault on connections, in place of the one that they had. Bytes that the proxy reads after this returns
    /// meet the fault.
    pub(crate) fn put(&self, fault: Fault, reach: Reach) {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        let commands = self.commands.as_ref().expect("open until it is dropped");
        commands.send(Command { fault, reach, done }).expect("the proxy runs");
        wait.recv().expect("the proxy runs");
    }

    /// Ends every fault. What was reset, half-closed or lost stays so.
    pub(crate) fn heal(&self) {
        self.put(Fault::None, Reach::All);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the proxy has failed the test already, at its next `put`.
            drop(thread.join());
        }
    }
}

/// The listening side: open, or the port held without listening, so that nobody else gets it meanwhile.
enum Door {
    Open(TcpListener),
    Shut(TcpSocket),
}

struct Accept {
    door: Door,
    address: SocketAddr,
    target_port: u16,
    new: Fault,
    connections: Vec<watch::Sender<Fault>>,
}

impl Accept {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let accepted = async {
                match &self.door {
                    Door::Open(listener) => listener.accept().await,
                    Door::Shut(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self = self.obey(command),
                    None => return,
                },
                accepted = accepted => {
                    let (client, _) = accepted.unwrap();
                    self.connect(client);
                }
            }
        }
    }

    fn connect(&mut self, client: TcpStream) {
        self.connections.retain(|fault| !fault.is_closed());
        let (fault, seen) = watch::channel(self.new);
        self.connections.push(fault);
        tokio::spawn(carry(client, self.target_port, seen));
    }

    fn obey(mut self, command: Command) -> Self {
        if command.reach != Reach::New && command.fault != Fault::Refuse {
            for fault in &self.connections {
                fault.send_replace(command.fault);
            }
        }
        if command.reach != Reach::Existing {
            self.new = command.fault;
            self.door = match (self.door, command.fault == Fault::Refuse) {
                (Door::Open(listener), true) => {
                    drop(listener);
                    let held = TcpSocket::new_v4().unwrap();
                    held.set_reuseaddr(true).unwrap();
                    held.bind(self.address).unwrap();
                    Door::Shut(held)
                }
                (Door::Shut(held), false) => Door::Open(held.listen(1024).unwrap()),
                (door, _) => door,
            };
        }
        command.done.send(()).expect("put waits for it");
        self
    }
}

/// Carries one connection to its end.
async fn carry(mut client: TcpStream, target_port: u16, fault: watch::Receiver<Fault>) {
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target_port)).await else {
        return reset(&client);
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let is_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = Line::new(Direction::ToServer, from_client, to_server, fault.clone());
        let back = Line::new(Direction::ToClient, from_server, to_client, fault);
        tokio::try_join!(there.run(), back.run()).is_err()
    };
    if is_cut {
        reset(&client);
        reset(&server);
    }
}

/// Makes the close that follows a reset.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().unwrap();
}

/// One direction of a connection.
struct Line<'a> {
    direction: Direction,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    fault: watch::Receiver<Fault>,
    /// Chunks that were read, each with the time from which it may be written.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    waiting_bytes: usize,
    /// When the last chunk has passed a throttled line.
    passed: Instant,
    /// Bytes that may still pass before the cut.
    left: u64,
    has_lost: bool,
    is_from_closed: bool,
    is_to_closed: bool,
}

impl<'a> Line<'a> {
    fn new(
        direction: Direction,
        from: ReadHalf<'a>,
        to: WriteHalf<'a>,
        mut fault: watch::Receiver<Fault>,
    ) -> Self {
        fault.mark_changed();
        Self {
            direction,
            from,
            to,
            fault,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            passed: Instant::now(),
            left: u64::MAX,
            has_lost: false,
            is_from_closed: false,
            is_to_closed: false,
        }
    }

    /// Runs until both ends of the direction are closed; an error is a reset.
    async fn run(mut self) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        // Who lost something does not learn of the end either, and waits for its reset.
        while !(self.is_from_closed && self.waiting.is_empty()) || self.has_lost {
            let fault = *self.fault.borrow();
            let is_moving = fault != Fault::Stall;
            let has_room = self.waiting_bytes < LINE_BYTES_MAX;
            let head = self.waiting.front();
            tokio::select! {
                biased;
                changed = self.fault.changed() => match changed {
                    Ok(()) => self.meet().await?,
                    // The proxy ends.
                    Err(_) => return Ok(()),
                },
                written = deliver(&mut self.to, head, self.left), if head.is_some() && is_moving => {
                    self.delivered(written?)?;
                }
                read = self.from.read(&mut chunk), if is_moving && has_room && !self.is_from_closed => {
                    match read {
                        Err(_) | Ok(0) if fault == Fault::BlackHole => {
                            self.has_lost = true;
                            self.is_from_closed = true;
                        }
                        Err(error) => return Err(error),
                        Ok(0) => self.is_from_closed = true,
                        Ok(length) => self.take(fault, &chunk[..length]),
                    }
                }
            }
        }
        if !self.is_to_closed {
            self.to.shutdown().await?;
        }
        Ok(())
    }

    /// Takes notice of a new fault.
    async fn meet(&mut self) -> io::Result<()> {
        let fault = *self.fault.borrow_and_update();
        self.left = u64::MAX;
        if self.has_lost && fault != Fault::BlackHole {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        match fault {
            Fault::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
            Fault::HalfClose(direction) if direction == self.direction => {
                self.is_to_closed = true;
                self.forget();
                self.to.shutdown().await?;
            }
            Fault::CutAfter(direction, bytes) if direction == self.direction => {
                self.left = bytes;
            }
            Fault::BlackHole => {
                self.has_lost |= !self.waiting.is_empty();
                self.forget();
            }
            Fault::None => {
                self.passed = Instant::now();
                self.waiting.iter_mut().for_each(|(due, _)| *due = self.passed);
            }
            Fault::Latency(_)
            | Fault::Throttle(_)
            | Fault::Stall
            | Fault::HalfClose(_)
            | Fault::CutAfter(..)
            | Fault::Refuse => {}
        }
        Ok(())
    }

    /// Puts what was read on the line, or loses it.
    fn take(&mut self, fault: Fault, bytes: &[u8]) {
        let now = Instant::now();
        let due = match fault {
            Fault::BlackHole => {
                self.has_lost = true;
                return;
            }
            Fault::Latency(latency) => now + latency,
            Fault::Throttle(rate) => {
                self.passed =
                    self.passed.max(now) + Duration::from_secs_f64(bytes.len() as f64 / rate.max(1) as f64);
                self.passed
            }
            Fault::None
            | Fault::Stall
            | Fault::Reset
            | Fault::HalfClose(_)
            | Fault::CutAfter(..)
            | Fault::Refuse => now,
        };
        if !self.is_to_closed {
            self.waiting_bytes += bytes.len();
            self.waiting.push_back((due, bytes.to_vec()));
        }
    }

    fn delivered(&mut self, count: usize) -> io::Result<()> {
        self.waiting_bytes -= count;
        if let Some((_, chunk)) = self.waiting.front_mut() {
            chunk.drain(..count);
            if chunk.is_empty() {
                self.waiting.pop_front();
            }
        }
        self.left -= count as u64;
        if self.left == 0 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    fn forget(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
    }
}

/// Writes the beginning of a chunk once it is due, at most `left` bytes. Cancel safe.
async fn deliver(to: &mut WriteHalf<'_>, head: Option<&(Instant, Vec<u8>)>, left: u64) -> io::Result<usize> {
    let Some((due, bytes)) = head else { return Ok(0) };
    sleep_until(*due).await;
    let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    to.write(bytes.get(..length).unwrap_or_default()).await
}
