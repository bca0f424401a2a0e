//! A client that leaves takes its request with it, in every phase (server.md 14.2).

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::live::{Live, config, long, read};

/// The time to notice, and a few steps of the slow model.
const SOON: Duration = Duration::from_millis(250 + 350);

/// Reads until the stream has said something of the answer.
fn until_text(stream: &mut TcpStream) {
    let mut seen = String::new();
    while !seen.contains("content\":\"one") {
        let mut bytes = [0; 1024];
        let n = stream.read(&mut bytes).expect("more of the answer");
        assert!(n > 0, "{seen}");
        seen += &String::from_utf8_lossy(&bytes[..n]);
    }
}

#[test]
fn leaving_ends_a_request_while_it_decodes() {
    let live = Live::start(config());
    for streams in [true, false] {
        for half in [true, false] {
            let mut client = live.begin("hello", streams);
            live.until(1, 0);
            if streams {
                until_text(&mut client);
            }
            if half {
                client.shutdown(Shutdown::Write).expect("half closed");
            } else {
                drop(client);
            }
            let took = live.until(0, 0);
            assert!(took < SOON, "{took:?}, streams {streams}, half {half}");
        }
    }
}

#[test]
fn leaving_ends_a_request_while_its_prompt_is_read() {
    let live = Live::start(config());
    for streams in [true, false] {
        let client = live.begin(&long(), streams);
        live.until(1, 0);
        std::thread::sleep(Duration::from_millis(300));
        drop(client);
        let took = live.until(0, 0);
        assert!(took < SOON, "{took:?}, streams {streams}");
    }
}

#[test]
fn leaving_ends_a_request_that_waits() {
    let live = Live::start(config());
    let first = live.begin(&long(), true);
    live.until(1, 0);
    for streams in [true, false] {
        let second = live.begin("hello", streams);
        live.until(1, 1);
        drop(second);
        let took = live.until(1, 0);
        assert!(took < SOON, "{took:?}, streams {streams}");
    }
    drop(first);
    live.until(0, 0);
}

#[test]
fn leaving_is_noticed_behind_bytes_that_nobody_reads_yet() {
    let live = Live::start(config());
    let mut client = live.begin("hello", false);
    live.until(1, 0);
    client.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    drop(client);
    let took = live.until(0, 0);
    assert!(took < SOON, "{took:?}");
}

#[test]
fn those_who_stay_are_not_harmed() {
    let live = Live::with(config(), 2);
    let (mut stays, leaves) = (live.begin("hello", true), live.begin("hello too", true));
    live.until(2, 0);
    drop(leaves);
    live.until(1, 0);
    stays.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut text = String::new();
    while !text.contains("[DONE]") {
        let mut bytes = [0; 1024];
        let n = stays.read(&mut bytes).expect("more");
        text += &String::from_utf8_lossy(&bytes[..n]);
    }
    assert!(text.contains("elve"), "{text}");
    // The same connection takes the next request.
    stays.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    assert_eq!(read(&mut stays).status, 200);
}
