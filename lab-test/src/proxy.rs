//! A proxy in front of Incus' socket that counts changing requests, and kills a process at one of
//! them.

mod message;

use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use message::{Framing, Head};

/// When to act at a changing request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It has arrived and is never forwarded.
    Before,
    /// Its whole answer has come from Incus and is not passed on yet.
    After,
}

/// A proxy that listens until it is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    socket: PathBuf,
    listening: UnixStream,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often the list was cleared: a request from before must not be taken for one of after.
    round: u64,
    changing: Vec<String>,
    order: Option<Order>,
    struck: Arc<Mutex<bool>>,
    cut: bool,
    links: Vec<Weak<Link>>,
}

struct Order {
    number: usize,
    moment: Moment,
    act: Box<dyn FnOnce() + Send>,
    /// Locked while it acts.
    done: Arc<Mutex<bool>>,
}

/// A connection of a client and the one made for it.
struct Link {
    client: UnixStream,
    upstream: UnixStream,
}

/// A changing request's place in the list.
#[derive(Clone, Copy)]
struct Place {
    round: u64,
    number: usize,
}

/// A request whose answer is to come.
struct Awaited {
    is_head: bool,
    place: Option<Place>,
}

impl Proxy {
    /// Listens at `socket` and forwards every connection to `upstream`.
    pub fn start(socket: &Path, upstream: &Path) -> Proxy {
        let listener = UnixListener::bind(socket)
            .unwrap_or_else(|error| panic!("listening at {}: {error}", socket.display()));
        let listening = UnixStream::from(OwnedFd::from(listener.try_clone().unwrap()));
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            state: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let accepting = thread::spawn(move || {
            // Ends with the error that shutting the socket down brings.
            while let Ok((client, _)) = listener.accept() {
                let shared = Arc::clone(&serving);
                thread::spawn(move || serve(&shared, client));
            }
        });
        Proxy {
            shared,
            socket: socket.to_owned(),
            listening,
            accepting: Some(accepting),
        }
    }

    /// The changing requests since the start or [`Proxy::clear`], in the order in which their heads
    /// arrived, such as `PUT /1.0/instances/a/state (stop)`.
    pub fn changing(&self) -> Vec<String> {
        self.shared.state().changing.clone()
    }

    /// Forgets the list and any order to act; the next changing request has number 0.
    pub fn clear(&self) {
        let mut state = self.shared.state();
        state.round += 1;
        state.changing.clear();
        state.order = None;
        state.struck = Arc::default();
    }

    /// Sends SIGKILL to `pid` at the changing request with this number, in place of any earlier
    /// order.
    pub fn kill_at(&self, number: usize, moment: Moment, pid: u32) {
        assert!(pid > 1, "{pid} is not one process of a test");
        self.at(number, moment, move || {
            // Its failure is that of a process that is gone already.
            let _ = Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .stderr(Stdio::null())
                .status()
                .unwrap();
        });
    }

    /// Acts once at the changing request with this number, in place of any earlier order. The
    /// request or its answer is held up meanwhile.
    pub fn at(&self, number: usize, moment: Moment, act: impl FnOnce() + Send + 'static) {
        let done = Arc::<Mutex<bool>>::default();
        let mut state = self.shared.state();
        state.struck = Arc::clone(&done);
        state.order = Some(Order {
            number,
            moment,
            act: Box::new(act),
            done,
        });
    }

    /// Whether the last order was carried out; waits for the end of what it does (so it must not
    /// be asked there).
    pub fn struck(&self) -> bool {
        let struck = Arc::clone(&self.shared.state().struck);
        *lock(&struck)
    }

    /// Cuts every connection, and each new one at once, as if Incus went away, until
    /// [`Proxy::mend`].
    pub fn cut(&self) {
        let mut state = self.shared.state();
        state.cut = true;
        for link in state.links.drain(..).filter_map(|link| link.upgrade()) {
            shut(&[&link.client, &link.upstream]);
        }
    }

    /// Lets new connections through again.
    pub fn mend(&self) {
        self.shared.state().cut = false;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().order = None;
        self.cut();
        // Linux wakes whoever waits to accept.
        shut(&[&self.listening]);
        // Its folder may be gone.
        let _ = std::fs::remove_file(&self.socket);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn join(&self, link: &Arc<Link>) -> bool {
        let mut state = self.state();
        state.links.retain(|other| other.strong_count() > 0);
        if !state.cut {
            state.links.push(Arc::downgrade(link));
        }
        !state.cut
    }

    fn count(&self, head: &Head) -> Place {
        let mut state = self.state();
        let place = Place {
            round: state.round,
            number: state.changing.len(),
        };
        state
            .changing
            .push(format!("{} {}", head.word(0), head.path()));
        place
    }

    fn describe(&self, place: Place, details: &str) {
        let mut state = self.state();
        if state.round == place.round && !details.is_empty() {
            state.changing[place.number] += &format!(" ({details})");
        }
    }

    /// Carries out the order if it is for this request and moment; whether it was.
    fn strike(&self, place: Place, moment: Moment) -> bool {
        let mut state = self.state();
        let now = (state.round == place.round).then_some((place.number, moment));
        let order = state
            .order
            .take_if(|order| now == Some((order.number, order.moment)));
        let Some(Order { act, done, .. }) = order else {
            return false;
        };
        // A killed process is seen to end before `kill` is.
        let mut done = lock(&done);
        drop(state);
        act();
        *done = true;
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends connections when a thread ends, even by a panic, so that its peers see it.
struct Ends<'a>(&'a [&'a UnixStream]);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        shut(self.0);
    }
}

fn shut(streams: &[&UnixStream]) {
    for stream in streams {
        // It may be shut already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn serve(shared: &Shared, client: UnixStream) {
    let Ok(upstream) = UnixStream::connect(&shared.upstream) else {
        return;
    };
    let link = Arc::new(Link { client, upstream });
    if !shared.join(&link) {
        return;
    }
    let link = &*link;
    let (asked, awaited) = channel();
    // Each side ends with an error when a peer goes away, and ends the other.
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ends = Ends(&[&link.client, &link.upstream]);
            pass_answers(shared, link, &awaited)
        });
        // The client's end is left to the answers: one may have come already.
        let _ends = Ends(&[&link.upstream]);
        let _ = pass_requests(shared, link, &asked);
    });
}

fn pass_requests(shared: &Shared, link: &Link, asked: &Sender<Awaited>) -> io::Result<()> {
    let mut client = BufReader::new(&link.client);
    loop {
        let head = Head::read(&mut client)?;
        let place = head.is_changing().then(|| shared.count(&head));
        let mut body = Vec::new();
        let framing = head.framing().unwrap_or(Framing::Length(0));
        framing.pass(&mut client, &mut body)?;
        if let Some(place) = place {
            shared.describe(place, &head.details(&framing.plain(&body)));
            if shared.strike(place, Moment::Before) {
                return Ok(());
            }
        }
        let is_head = head.word(0) == "HEAD";
        asked
            .send(Awaited { is_head, place })
            .map_err(io::Error::other)?;
        let whole = [head.raw, body].concat();
        (&link.upstream).write_all(&whole)?;
    }
}

fn pass_answers(shared: &Shared, link: &Link, awaited: &Receiver<Awaited>) -> io::Result<()> {
    let mut upstream = BufReader::new(&link.upstream);
    let mut client = &link.client;
    loop {
        let head = Head::read(&mut upstream)?;
        let Awaited { is_head, place } = awaited.try_recv().map_err(io::Error::other)?;
        let framing = if is_head || ["204", "304"].contains(&head.word(1)) {
            Framing::Length(0)
        } else {
            head.framing().unwrap_or(Framing::ToEnd)
        };
        let mut whole = head.raw;
        if let Some(place) = place {
            framing.pass(&mut upstream, &mut whole)?;
            shared.strike(place, Moment::After);
            client.write_all(&whole)?;
        } else {
            client.write_all(&whole)?;
            framing.pass(&mut upstream, &mut client)?;
        }
    }
}
