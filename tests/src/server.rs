//! A server of the carried model, in this process.

use offramp_engine::{Speculate, set_threads};
use offramp_model::Formats;
use offramp_pipeline::{Carried, ChatTemplate, ModelSource, Pipeline};
use offramp_serve::{Access, ServeOptions, serve};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A server that ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The carried model's files.
pub fn carried() -> ModelSource {
    let model = offramp_models::TINYSTORIES_24;
    let (name, config) = (model.name, model.config);
    ModelSource::Carried(Carried { name, config, weights: model.weights, tokenizer: model.tokenizer })
}

/// The carried model.
///
/// # Panics
/// If it is damaged.
pub fn pipeline() -> Pipeline {
    let _ = set_threads(2);
    carried().open(&Formats::default()).expect("the carried model")
}

/// Options for a test: any port, memory for some texts, no speculation unless a request asks for it.
pub fn options() -> ServeOptions {
    ServeOptions {
        host: "127.0.0.1".to_owned(),
        port: 0,
        access: Access::default(),
        memory: 64 << 20,
        max_texts: 8,
        queue: 100,
        context: None,
        speculate: Speculate::Off,
        draft_head: None,
        draft_format: None,
        calibrate: None,
        name: "tinystories-24".to_owned(),
        root: "models/tinystories-24".to_owned(),
        grace: Duration::from_secs(60),
    }
}

impl Server {
    /// Starts a server.
    ///
    /// # Panics
    /// If it cannot start.
    pub fn start(template: Option<ChatTemplate>, options: ServeOptions) -> Self {
        let (listening, address) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let pipeline = pipeline();
            let listening = move |address| listening.send(address).expect("the test waits");
            let told = move || told.load(Ordering::Acquire);
            serve(pipeline, template, options, listening, told).expect("the server runs");
        });
        let address = address.recv().expect("the server starts");
        Self { address, stop, thread: Some(thread) }
    }

    /// Tells it to end, but does not wait.
    pub fn tell_to_end(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// A number of `/metrics`.
    ///
    /// # Panics
    /// If it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let text = crate::http::get(self.address, "/metrics").text();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {text}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tell_to_end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the server failed");
        }
    }
}
