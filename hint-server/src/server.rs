//! From the command line to a running server: listen, attach, drop privileges, see what works without them, and only then start threads.

use std::{
    fs, io,
    io::Write,
    net::TcpListener,
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
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{
    cli::ServeArgs,
    poller, privileges,
    probe::{choose, kernel::follow_events},
    publish::{Feed, router, source_name},
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
    let opened = choose::open(&cli.probe)?;
    privileges::drop_all().context("cannot drop privileges")?;
    let chosen = opened.choose()?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(serve(cli, tcp, unix, chosen));
    // A reader that does not take its answer must not hold up the exit.
    runtime.shutdown_background();
    result
}

async fn serve(cli: &ServeArgs, tcp: TcpListener, unix: Option<SocketFile>, mut chosen: choose::Chosen) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let source = chosen.probe.source();
    let feed = Arc::new(Feed::new(Tracker::new(source, cli.bytes_per_token.into())));
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
    let over_tcp = axum::serve(tcp, router(Arc::clone(&feed))).with_graceful_shutdown(feed.stopped());
    let unix_router = router(Arc::clone(&feed));
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
