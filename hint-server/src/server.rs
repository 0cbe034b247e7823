//! From the command line to a running server: listen, attach, drop privileges, see what works without them, and only then start threads.

use std::{
    fs, io,
    io::Write,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::serve::ListenerExt;
use tokenflow_hint_api::Source;
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{
    cli::ServeArgs,
    engine::EngineWatch,
    peers::Share,
    poller, privileges,
    probe::{choose, kernel::follow_events},
    publish::{Access, AllowedHosts, App, Feed, router, source_name, unix_router},
    tracker::Tracker,
};

/// Readers' requests may take this long to end after a signal; streams are ended by us.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT. Call it before any other thread exists.
///
/// # Errors
/// One sentence: an address in use, a probe that does not work.
pub fn run(cli: &ServeArgs) -> anyhow::Result<()> {
    cli.probe.validate()?;
    let tcp = TcpListener::bind(cli.listen).with_context(|| format!("cannot listen on {}", cli.listen))?;
    tcp.set_nonblocking(true)?;
    let unix = cli.socket.as_deref().map(SocketFile::bind).transpose()?;
    let app = app(cli)?;
    let opened = choose::open(&cli.probe)?;
    privileges::drop_all().context("cannot drop privileges")?;
    let chosen = opened.choose()?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(serve(app, tcp, unix, chosen));
    // A reader that does not take its answer must not hold up the exit.
    runtime.shutdown_background();
    result
}

/// What the command line says of readers, other hosts and the page, read while there is privilege to read it.
fn app(cli: &ServeArgs) -> anyhow::Result<App> {
    let feed = Arc::new(Feed::new(Tracker::new(Source::None, cli.bytes_per_token.into())));
    let token = match (&cli.token, &cli.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => {
            let shown = path.display();
            Some(fs::read_to_string(path).with_context(|| format!("--token-file {shown}: cannot be read"))?.trim().to_owned())
        }
        (None, None) => None,
    };
    let access = token.map_or_else(|| Ok(Access::default()), |token| Access::with_token(&token)).context("--token")?;
    if !access.has_token() && !cli.listen.ip().is_loopback() {
        tracing::warn!("listening on {}, but without --token-file only readers on this host are answered", cli.listen);
    }
    let experiments = cli.experiment.iter().map(|path| read_summary(path)).collect::<anyhow::Result<Vec<String>>>()?;
    let experiments = format!("[{}]", experiments.join(",")).into();
    let share = cli.redis.as_deref().map(|url| Share::new(url, cli.host_name.as_deref())).transpose()?;
    let engine = cli.engine_url.as_deref().map(EngineWatch::new).transpose()?;
    let hosts = AllowedHosts::new(&cli.allow_host)?;
    Ok(App { feed, access, hosts, share, engine, experiments })
}

fn read_summary(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("--experiment {shown}: cannot be read"))?;
    serde_json::from_str::<serde_json::Value>(&text).with_context(|| format!("--experiment {shown}: not JSON"))?;
    Ok(text)
}

async fn serve(app: App, tcp: TcpListener, unix: Option<SocketFile>, mut chosen: choose::Chosen) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let source = chosen.probe.source();
    let feed = Arc::clone(&app.feed);
    feed.begin(source);
    if let Some(share) = &app.share {
        tokio::spawn(Arc::clone(share).run(Arc::clone(&feed)));
    }
    if let Some(engine) = &app.engine {
        tokio::spawn(Arc::clone(engine).run());
    }
    tokio::spawn(remember(app.clone()));
    let wake = Arc::new(Notify::new());
    chosen.probe.start(&Handle::current())?;
    let poller = poller::spawn(Handle::current(), chosen.probe, Arc::clone(&feed), Arc::clone(&wake))?;

    let events = async {
        match chosen.events {
            Some(ring) => follow_events(ring, &feed, Arc::clone(&wake)).await,
            None => std::future::pending().await,
        }
    };
    let tcp = tokio::net::TcpListener::from_std(tcp)?;
    let address = tcp.local_addr()?;
    let tcp = tcp.tap_io(|stream| {
        // A socket that is gone already shows it at the next write.
        let _ = stream.set_nodelay(true);
    });
    let over_tcp = axum::serve(tcp, router(app.clone()).into_make_service_with_connect_info::<SocketAddr>());
    let over_tcp = over_tcp.with_graceful_shutdown(feed.stopped());
    let unix_router = unix_router(app);
    let unix_stopped = feed.stopped();
    let over_unix = async move {
        let Some(mut file) = unix else { return Ok(()) };
        let listener = tokio::net::UnixListener::from_std(file.listener.take().context("the socket was taken")?)?;
        axum::serve(listener, unix_router).with_graceful_shutdown(unix_stopped).await?;
        anyhow::Ok(())
    };
    let servers = async { tokio::try_join!(async { Ok(over_tcp.await?) }, over_unix) };
    tokio::pin!(servers);

    // The line that scripts wait for; nobody reading it is no reason to stop.
    let _ = writeln!(io::stdout(), "tokenflow-hint-server listening on http://{address} (probe: {})", source_name(source));
    let ended = tokio::select! {
        result = &mut servers => Err(result.err().unwrap_or_else(|| anyhow::anyhow!("serving stopped"))),
        result = events => result.context("the kernel program's events cannot be read"),
        _ = poller => Err(anyhow::anyhow!("measuring stopped")),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    feed.stop();
    ended?;
    if tokio::time::timeout(DRAIN, servers).await.is_err() {
        tracing::warn!("some readers did not take their answers in time");
    }
    Ok(())
}

/// Keeps the page's history.
async fn remember(app: App) {
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    loop {
        ticks.tick().await;
        app.feed.remember(app.feed.now(), || app.engine.as_ref().and_then(|engine| engine.state()));
    }
}

/// A unix socket whose file goes away with it.
struct SocketFile {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl SocketFile {
    /// Listens at `path`, replacing the file of a server that is gone; owner and group may connect.
    fn bind(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if let Ok(metadata) = fs::symlink_metadata(path) {
            anyhow::ensure!(metadata.file_type().is_socket(), "--socket {shown}: there is a file that is not a socket");
            anyhow::ensure!(UnixStream::connect(path).is_err(), "--socket {shown}: another process listens on it");
            fs::remove_file(path).with_context(|| format!("--socket {shown}: cannot remove the old socket"))?;
        }
        let listener = UnixListener::bind(path).with_context(|| format!("--socket {shown}: cannot listen"))?;
        let file = Self { path: path.to_owned(), listener: Some(listener) };
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).with_context(|| format!("--socket {shown}: cannot set its mode"))?;
        if let Some(listener) = &file.listener {
            listener.set_nonblocking(true)?;
        }
        Ok(file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
