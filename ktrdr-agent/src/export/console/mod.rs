//! Spans for people and for pipes: a thread that writes text.

pub mod human;
pub mod json;
pub mod terminal;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::drops::Drops;
use super::otlp::StartError;
use super::queue::{Books, Queue};
use super::{Item, LogItem, SpanSink};
use crate::privileges::{self, Reach};
use human::Human;

/// Spans that may wait for a slow terminal or disk; about 2 kB each.
const QUEUE: usize = 8_192;
/// Spans written at once: one `write` for many lines under load.
const BATCH: usize = 256;
/// How often the human form looks for traces that have become complete. Together with its grace time below the
/// 200 ms in which a lone call is to be seen.
const TICK: Duration = Duration::from_millis(50);

/// What to write, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleOptions {
    /// Form.
    pub format: Format,
    /// Destination.
    pub output: Output,
    /// Colours (human form only).
    pub color: Color,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An indented tree per trace.
    Human,
    /// One JSON object per span per line.
    Json,
}

/// Destination of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file, begun anew.
    File(PathBuf),
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What is shown.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A span.
    Span(Item),
    /// A log record.
    Log(LogItem),
}

/// A running console.
pub struct ConsoleSink {
    queue: Arc<Queue<Entry>>,
    ended: mpsc::Receiver<()>,
    gone: Arc<AtomicBool>,
    name: &'static str,
}

impl ConsoleSink {
    /// Opens the output and starts the thread.
    pub fn start(options: ConsoleOptions) -> Result<Self, StartError> {
        let writer: Box<dyn Write + Send> = match &options.output {
            // Not the locked handle: the thread may be stuck in a write when the process ends.
            Output::Stdout => Box::new(io::stdout()),
            Output::File(path) => Box::new(
                File::create(path)
                    .map_err(|e| StartError::Output { path: path.clone(), why: e.to_string() })?,
            ),
        };
        let name = match (&options.output, options.format) {
            (Output::File(_), _) => "spans-out",
            (Output::Stdout, Format::Human) => "console",
            (Output::Stdout, Format::Json) => "console-json",
        };
        let queue = Arc::new(Queue::new(QUEUE, BATCH));
        let (end, ended) = mpsc::sync_channel(1);
        let gone = Arc::new(AtomicBool::new(false));
        let (consumer, leaving) = (queue.clone(), gone.clone());
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                privileges::worker(Reach::Nothing);
                let result = match options.format {
                    Format::Json => write_json(&consumer, writer, name),
                    Format::Human => write_human(&consumer, writer, &options),
                };
                if let Err(error) = result {
                    // A reader that has seen enough (`| head`) is no error.
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        tracing::error!("{name}: cannot write spans any more: {error}");
                    }
                    leaving.store(true, Ordering::Relaxed);
                }
                consumer.abandon();
                let _ = end.send(());
            })
            .map_err(|e| StartError::Thread(e.to_string()))?;
        Ok(Self { queue, ended, gone, name })
    }
}

impl SpanSink for ConsoleSink {
    fn name(&self) -> &'static str {
        self.name
    }
    fn submit(&self, span: &Item) {
        self.queue.submit(Entry::Span(span.clone()));
    }
    fn submit_log(&self, record: &LogItem) {
        self.queue.submit(Entry::Log(record.clone()));
    }
    fn wait_for_room(&self, patience: Duration) {
        self.queue.wait_for_room(patience);
    }
    fn gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
    fn books(&self) -> Books {
        self.queue.books()
    }
    fn begin_stop(&self, _deadline: Instant) {
        self.queue.close();
    }
    fn wait_stopped(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        if self.ended.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
            self.queue.abandon();
        }
    }
}

fn write_json(queue: &Queue<Entry>, mut writer: impl Write, name: &str) -> io::Result<()> {
    let (mut lines, mut drops) = (Vec::new(), Drops::default());
    while let Some(batch) = queue.next_batch_blocking(Duration::from_secs(3600)) {
        lines.clear();
        for entry in &batch {
            match entry {
                Entry::Span(span) => json::line(span, &mut lines),
                Entry::Log(record) => json::log_line(record, &mut lines),
            }
        }
        writer.write_all(&lines)?;
        writer.flush()?;
        queue.settle(batch.len() as u64, 0);
        drops.look(
            name,
            "spans",
            &queue.books(),
            "they come faster than they can be written",
            Instant::now(),
        );
    }
    Ok(())
}

fn write_human(queue: &Queue<Entry>, mut writer: impl Write, options: &ConsoleOptions) -> io::Result<()> {
    let on_terminal = options.output == Output::Stdout && terminal::stdout_is_terminal();
    let color = match options.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => on_terminal && terminal::wants_color(),
    };
    let start = Instant::now();
    let (mut human, mut text, mut dropped) = (Human::default(), String::new(), 0);
    loop {
        let batch = queue.next_batch_blocking(TICK);
        let ended = batch.is_none();
        let now = start.elapsed();
        // Spans that ended long ago may arrive together (replay): the tree's clock is the arrival's.
        let mut unshown = 0;
        for entry in batch.into_iter().flatten() {
            match entry {
                Entry::Span(span) => human.push(span, now),
                Entry::Log(record) => unshown += human.push_log(record, now),
            }
        }
        text.clear();
        let width = if on_terminal { terminal::width() } else { None };
        let style = human::Style { width: width.unwrap_or(140), color, utc_offset: terminal::utc_offset };
        let shown =
            if ended { human.finish(now, &style, &mut text) } else { human.poll(now, &style, &mut text) };
        human::not_shown(queue.books().dropped_full, &mut dropped, &mut text);
        if !text.is_empty() {
            writer.write_all(text.as_bytes())?;
            writer.flush()?;
        }
        queue.settle(shown + unshown, 0);
        if ended {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fixture;

    fn run(format: Format) -> (String, Books) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spans");
        let options = ConsoleOptions { format, output: Output::File(path.clone()), color: Color::Auto };
        let sink = ConsoleSink::start(options).unwrap();
        fixture::download().iter().for_each(|s| sink.submit(s));
        let deadline = Instant::now() + Duration::from_secs(20);
        sink.begin_stop(deadline);
        sink.wait_stopped(deadline);
        (std::fs::read_to_string(path).unwrap(), sink.books())
    }

    #[test]
    fn everything_submitted_is_written_before_the_end() {
        for format in [Format::Human, Format::Json] {
            let (text, books) = run(format);
            assert_eq!(books.exported, fixture::download().len() as u64, "{text}");
            assert!(books.balanced() && books.waiting == 0);
            assert!(text.ends_with('\n') && !text.contains('\x1b'), "no colours in a file: {text}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_said_at_start() {
        let output = Output::File("/nonexistent/dir/spans".into());
        let options = ConsoleOptions { format: Format::Json, output, color: Color::Auto };
        let error = ConsoleSink::start(options).err().unwrap().to_string();
        assert!(error.starts_with("cannot write spans to /nonexistent/dir/spans: No such file"), "{error}");
    }

    #[test]
    fn a_reader_that_left_ends_the_output_quietly() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let queue = Queue::new(4, 4);
        queue.submit(Entry::Span(fixture::download()[0].clone()));
        queue.close();
        assert_eq!(write_json(&queue, Gone, "test").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(queue.books().exported, 0);
    }
}
