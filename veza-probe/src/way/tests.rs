//! Tests of tunnels with both ends in one process, against servers on the loopback.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::clock::{self, within};

const LIMIT: Duration = Duration::from_secs(10);

/// Both ends of a tunnel in one process, without an instance between them.
fn joined() -> (Way, Tunnel, tokio::task::JoinHandle<()>) {
    let (out, mut outgoing) = mpsc::unbounded_channel();
    let (far_out, mut incoming) = mpsc::unbounded_channel();
    let tunnel = Tunnel::new(out);
    let near = tunnel.clone();
    let task = tokio::spawn(async move {
        let mut doors = Doors::new(Clock::start(), far_out);
        loop {
            tokio::select! {
                frame = outgoing.recv() => { doors.take(frame.unwrap()); }
                frame = incoming.recv() => { near.take(frame.unwrap()); }
            }
        }
    });
    (Way::Through(tunnel.clone()), tunnel, task)
}

#[tokio::test]
async fn bytes_pass_both_ways_in_their_order_and_the_end_passes_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (way, _tunnel, _task) = joined();
    // More than all buffers on the way together.
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let expected = sent.clone();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let echo = tokio::io::copy(&mut reader, &mut writer);
        // Until the client drops its end.
        let _ = echo.await;
    };
    let client = async {
        let stream = way.dial(address, &Options::default()).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut back = vec![0; expected.len()];
        let (written, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut back));
        written.unwrap();
        read.unwrap();
        assert!(back == expected, "the same bytes in the same order");
    };
    let both = async { tokio::join!(server, client) };
    within(LIMIT, both).await.expect("the server sees the end");
}

#[tokio::test]
async fn what_the_far_system_says_is_said_here() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (way, _tunnel, _task) = joined();
    let error = way.dial(address, &Options::default()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_server_that_closes_is_seen_to_close() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (way, _tunnel, _task) = joined();
    let mut stream = way.dial(address, &Options::default()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"bye").await.unwrap();
    drop(server);
    let mut text = String::new();
    let read = within(LIMIT, stream.read_to_string(&mut text)).await;
    read.expect("in time").unwrap();
    assert_eq!(text, "bye");
}

#[tokio::test]
async fn when_the_far_end_is_gone_connections_end_and_none_is_made() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (way, tunnel, task) = joined();
    let mut stream = way.dial(address, &Options::default()).await.unwrap();
    task.abort();
    tunnel.close();
    let read = within(LIMIT, stream.read(&mut [0; 8])).await;
    assert_eq!(read.expect("in time").unwrap(), 0);
    let error = way.dial(address, &Options::default()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_connection_that_nobody_waits_for_any_more_is_closed_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (way, _tunnel, _task) = joined();
    let stream = way.dial(address, &Options::default()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    drop(stream);
    let read = within(LIMIT, server.read(&mut [0; 8])).await;
    assert_eq!(read.expect("in time").unwrap(), 0);
}

#[tokio::test]
async fn a_handshake_is_timed_where_it_is_made() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (out, mut outgoing) = mpsc::unbounded_channel();
    let tunnel = Tunnel::new(out);
    let near = tunnel.clone();
    let slow = async {
        let (far_out, mut incoming) = mpsc::unbounded_channel();
        let mut doors = Doors::new(Clock::start(), far_out);
        doors.take(outgoing.recv().await.unwrap());
        let opened = incoming.recv().await.unwrap();
        // The way to the instance takes its time.
        clock::sleep(Duration::from_millis(300)).await;
        near.take(opened);
    };
    let clock = Clock::start();
    let way = Way::Through(tunnel);
    let (_, took) = tokio::join!(slow, way.handshake_us(&clock, address));
    let waited_us = clock.at().0;
    assert!(waited_us >= 300_000);
    assert!(took.unwrap() < waited_us - 290_000, "without the way");
}

fn frame() -> impl Strategy<Value = Frame> {
    let data = (any::<u32>(), proptest::collection::vec(any::<u8>(), 0..50));
    prop_oneof![
        data.prop_map(|(channel, bytes)| Frame::Data { channel, bytes }),
        any::<u64>().prop_map(|number| Frame::Word(Word::Ping { number })),
        "\\PC{0,20}".prop_map(|text| Frame::Word(Word::Hello { left: Some(text) })),
    ]
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces(
        frames in proptest::collection::vec(frame(), 0..10),
        piece in 1_usize..40,
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encoded).collect();
        let mut reader = Frames::default();
        let mut seen = Vec::new();
        for piece in bytes.chunks(piece) {
            reader.push(piece);
            while let Some(frame) = reader.next().unwrap() {
                seen.push(frame);
            }
        }
        prop_assert_eq!(seen, frames);
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = Frames::default();
        reader.push(&bytes);
        while let Ok(Some(_)) = reader.next() {}
    }
}

#[test]
fn a_stray_line_of_output_is_no_frame() {
    let mut reader = Frames::default();
    reader.push(b"-bash: warning: setlocale\n");
    let error = reader.next().unwrap_err().to_string();
    assert!(error.contains("can't be read"), "{error}");
}
