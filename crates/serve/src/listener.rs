//! Takes connections, and ends well.

use crate::agreements::{Agreements, Calibrate};
use crate::app::{App, ChatSettings, router};
use crate::body::LONG_BODIES;
use crate::guard::Access;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::state::Shared;
use crate::tools::ToolFormat;
use crate::{Error, Result, app, worker};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use offramp_engine::{SchedulerOptions, Speculate};
use offramp_model::{BLOCK_POSITIONS, DraftHead};
use offramp_pipeline::{ChatTemplate, DraftFormat, Drafts, Pipeline};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// How long a client may take for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Connections at a time; more wait in the system's queue.
const CONNECTIONS: usize = 16_384;
/// Memory of a connection before its head is read.
const HEAD_BYTES: usize = 32 << 10;
/// A step that takes longer stands still: the longest one of a large model is a piece of a prompt.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is asked whether to stop.
const ASK: Duration = Duration::from_millis(50);

/// How to serve.
pub struct ServeOptions {
    /// The name or address to listen on.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// Who may ask.
    pub access: Access,
    /// Bytes of keys and values, those of ended texts among them.
    pub memory: u64,
    /// Texts at a time.
    pub max_texts: usize,
    /// Texts that may wait beside them.
    pub queue: usize,
    /// Positions of one text; all that the model has where nothing is said.
    pub context: Option<usize>,
    /// What happens where a request does not say.
    pub speculate: Speculate,
    /// The head that drafts.
    pub draft_head: Option<DraftHead>,
    /// The format of the layers that draft.
    pub draft_format: Option<DraftFormat>,
    /// Finds policies for agreements.
    pub calibrate: Option<Calibrate>,
    /// The model's name.
    pub name: String,
    /// Where it was loaded from.
    pub root: String,
    /// How long texts may go on after the server was told to end.
    pub grace: Duration,
}

/// What a server did until it ended.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Texts that had to be cut off at the end.
    pub cut_off: usize,
}

/// Serves a model until `stop` says so, and the texts that run then have ended. `listening` is called with
/// the address once connections are taken.
///
/// # Errors
/// If the address cannot be listened on, or there is not enough memory.
pub fn serve(
    pipeline: Pipeline,
    template: Option<ChatTemplate>,
    options: ServeOptions,
    listening: impl FnOnce(SocketAddr),
    stop: impl Fn() -> bool + Send,
) -> Result<Served> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(Error::Thread)?;
    let found = runtime.block_on(async move {
        let address = format!("{}:{}", options.host, options.port);
        let failed = |source| Error::Listen { address: address.clone(), source };
        let listener =
            TcpListener::bind((options.host.trim_matches(['[', ']']), options.port)).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let grace = options.grace;
        let app = Arc::new(app(pipeline, template, options, local)?);
        listening(local);
        accept(&listener, Arc::clone(&app), &stop).await;
        Ok(Served { cut_off: finish(&listener, &app, grace).await })
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    found
}

fn app(
    pipeline: Pipeline,
    template: Option<ChatTemplate>,
    options: ServeOptions,
    address: SocketAddr,
) -> Result<App> {
    let whole = pipeline.model().config().context();
    let context = options.context.unwrap_or(whole);
    if context > whole {
        return Err(Error::Context { given: context, context: whole });
    }
    let layers = pipeline.model().config().num_hidden_layers;
    let position = pipeline.model().kv_bytes_per_position(layers).max(1);
    let blocks = options.memory / (position * BLOCK_POSITIONS as u64);
    let kv_positions = usize::try_from(blocks).unwrap_or(usize::MAX).saturating_mul(BLOCK_POSITIONS);
    if kv_positions == 0 {
        let (memory, block) = (options.memory, BLOCK_POSITIONS);
        return Err(Error::TooLittleMemory { memory, positions: 0, block, least: position * block as u64 });
    }
    let drafts = Drafts::new(pipeline.model(), options.draft_head, options.draft_format);
    drafts.layers(options.speculate)?; // made now, so that no request waits for them
    let (shared, metrics) = (Arc::new(Shared::new(PATIENCE)), Arc::new(Metrics::default()));
    let pipeline = Arc::new(pipeline);
    let scheduling =
        SchedulerOptions { max_num_seqs: options.max_texts, ..SchedulerOptions::new(kv_positions) };
    let commands =
        worker::start(Arc::clone(&pipeline), scheduling, Arc::clone(&shared), Arc::clone(&metrics))?;
    let most_places = options.max_texts.saturating_add(options.queue).min(Semaphore::MAX_PERMITS);
    Ok(App {
        chat: template.map(|template| chat_settings(&pipeline, template)),
        models: Models { id: options.name, root: options.root, layers, created: app::now() },
        fingerprint: format!("offramp-{}", env!("CARGO_PKG_VERSION")),
        context: context.min(kv_positions),
        kv_positions,
        speculate: options.speculate,
        drafts,
        agreements: Agreements::new(options.calibrate),
        grammars: Default::default(),
        most_places,
        places: Arc::new(Semaphore::new(most_places)),
        long_bodies: Arc::new(Semaphore::new(LONG_BODIES)),
        commands,
        shared,
        metrics,
        access: Access { loopback: address.ip().is_loopback(), ..options.access },
        pipeline,
    })
}

fn chat_settings(pipeline: &Pipeline, template: ChatTemplate) -> ChatSettings {
    let mut stop_tokens = pipeline.stop_tokens().to_vec();
    let end = template.special_token("eos_token").and_then(|name| pipeline.tokenizer().token_id(name));
    stop_tokens.extend(end.filter(|end| !stop_tokens.contains(end)));
    ChatSettings { tools: ToolFormat::of(&template), template: Arc::new(template), stop_tokens }
}

/// Takes connections until it is time to stop.
async fn accept(listener: &TcpListener, app: Arc<App>, stop: &(impl Fn() -> bool + Send)) {
    let (router, connections) = (router(app), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else { return };
        let stream = tokio::select! {
            taken = listener.accept() => taken,
            () = until(stop) => return,
        };
        match stream {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router).await;
                    drop(place);
                });
            }
            // The system has no more files: connections that end give theirs back.
            Err(error) if is_of_one_connection(&error) => (),
            Err(_) => sleep(ASK).await,
        }
    }
}

/// Whether an error is the client's, who left before he was taken.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn until(stop: &(impl Fn() -> bool + Send)) {
    while !stop() {
        sleep(ASK).await;
    }
}

async fn connection(stream: TcpStream, router: axum::Router) {
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // What a client does wrong concerns nobody else.
    let _ = serving.await;
}

/// Refuses new work, and waits until all texts have ended; how many had not when the time was over.
async fn finish(listener: &TcpListener, app: &Arc<App>, grace: Duration) -> usize {
    app.shared.close();
    let begin = Instant::now();
    let busy = || app.most_places - app.places.available_permits();
    let refusing = accept(listener, Arc::clone(app), &|| false);
    let waiting = async {
        while busy() > 0 && begin.elapsed() < grace {
            sleep(ASK).await;
        }
    };
    tokio::select! { () = refusing => (), () = waiting => () }
    // The last chunks are still on their way.
    sleep(2 * ASK).await;
    busy()
}
