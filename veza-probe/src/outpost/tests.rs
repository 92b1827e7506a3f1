//! Tests of the near end without an instance: clocks, asked probes, losses.

use super::*;

fn heard() -> Heard {
    Heard {
        pong: watch::Sender::new(None),
        hello: watch::Sender::new(None),
        batches: Mutex::default(),
        words: Mutex::new(String::new()),
    }
}

fn outpost() -> (Outpost, mpsc::UnboundedReceiver<Frame>) {
    let (out, sent) = mpsc::unbounded_channel();
    let outpost = Outpost {
        instance: InstanceName::new("a").unwrap(),
        offset: Offset {
            us: 1_000_000,
            error_us: 0,
        },
        tunnel: Tunnel::new(out.clone()),
        out,
        heard: Arc::new(heard()),
        probers: AtomicU32::new(0),
        _tasks: JoinSet::new(),
    };
    (outpost, sent)
}

#[tokio::test]
async fn the_offset_is_that_of_the_fastest_round_trip() {
    let (outpost, mut sent) = outpost();
    let clock = Clock::start();
    let heard = Arc::clone(&outpost.heard);
    // A clock that is 5 s ahead, over a way that is sometimes slow.
    let far = async {
        while let Some(Frame::Word(Word::Ping { number })) = sent.recv().await {
            let at = clock.at().plus(Duration::from_secs(5));
            if number % 3 == 0 {
                clock::sleep(Duration::from_millis(30)).await;
            }
            heard.take(Word::Pong { number, at });
        }
    };
    let offset = tokio::select! {
        () = far => None,
        offset = outpost.measure(&clock) => offset,
    };
    let offset = offset.unwrap();
    assert!(
        (offset.us + 5_000_000).abs() <= offset.error_us,
        "{offset:?}"
    );
    assert!(offset.error_us < 15_000, "{offset:?}");
}

#[tokio::test]
async fn probes_are_due_by_the_clock_there_and_told_by_the_clock_here() {
    let (outpost, mut sent) = outpost();
    let clock = Clock::start();
    let hosts = (Value::Null, vec!["a".to_owned()]);
    let prober = outpost.probe(clock, hosts, Shape::default(), At(3_000_000));
    let Some(Frame::Word(Word::Other(asked))) = sent.recv().await else {
        panic!("it is asked to probe");
    };
    let Ok(Ask::Probe { first_due, .. }) = serde_json::from_value(asked) else {
        panic!("it is asked to probe");
    };
    assert_eq!(first_due, At(2_000_000));
    let sample = crate::prober::Sample {
        number: 0,
        due: first_due,
        start: first_due,
        end: first_due,
        outcome: crate::prober::Outcome::Success,
    };
    let batch = Batch {
        samples: vec![sample],
        issued: 1,
        is_last: true,
        ..Batch::default()
    };
    let answer = serde_json::to_value(Answer::Batch { prober: 0, batch }).unwrap();
    outpost.heard.take(Word::Other(answer));
    let samples = prober.finish().await;
    assert_eq!(samples[0].due, At(3_000_000));
}

#[tokio::test]
async fn a_host_that_can_not_be_made_there_is_a_loss_with_its_reason() {
    let (outpost, _sent) = outpost();
    let hosts = (Value::Null, Vec::new());
    let prober = outpost.probe(Clock::start(), hosts, Shape::default(), At(0));
    let mut news = prober.subscribe();
    let answer = Answer::Failed {
        prober: 0,
        words: "no such file".to_owned(),
    };
    outpost
        .heard
        .take(Word::Other(serde_json::to_value(answer).unwrap()));
    news.changed().await.unwrap();
    assert!(prober.lost());
    assert_eq!(outpost.told(), "no such file");
}

#[tokio::test]
async fn a_program_that_is_silent_is_gone_however_much_is_said_to_it() {
    let (outpost, sent) = outpost();
    let hosts = (Value::Null, Vec::new());
    let prober = outpost.probe(Clock::start(), hosts, Shape::default(), At(0));
    let mut news = prober.subscribe();
    // It is there and takes everything, and never says a word.
    let (input, _taken) = mpsc::unbounded_channel();
    let (_mute, output) = mpsc::unbounded_channel();
    let attached = Attached::of(input, output);
    let silence = Duration::from_millis(300);
    let heard = Arc::clone(&outpost.heard);
    let listening = listen(attached, sent, outpost.tunnel.clone(), heard, silence);
    let talking = async {
        let sign = || Frame::Word(Word::Ping { number: 0 });
        while outpost.out.send(sign()).is_ok() {
            clock::sleep(Duration::from_millis(20)).await;
        }
    };
    let gone = async {
        tokio::select! {
            () = listening => {}
            () = talking => {}
        }
    };
    within(Duration::from_secs(20), gone)
        .await
        .expect("noticed");
    let told = within(Duration::from_secs(20), news.changed()).await;
    told.expect("whoever waits for samples is told").unwrap();
    assert!(prober.lost());
    assert!(outpost.told().contains("no answer"), "{}", outpost.told());
}
