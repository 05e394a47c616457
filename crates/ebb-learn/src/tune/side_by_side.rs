//! Independent runs, several at a time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

/// Does `work` on every job, `threads` at a time, and gives the results back in the order of the
/// jobs: who finished first decides nothing. None if `stop` was set before all were done.
///
/// `ended` hears of each result (by the job's number, with its seconds) in this thread, as soon as
/// it is there.
///
/// # Errors
/// The first, by the order of the jobs, of those that `work` returned; or that of `ended`. Jobs
/// that were not begun by then are left.
pub fn side_by_side<J: Sync, R: Send, E: Send>(
    jobs: &[J],
    threads: usize,
    stop: &AtomicBool,
    work: impl Fn(&J) -> Result<R, E> + Sync,
    mut ended: impl FnMut(usize, f64, &R) -> Result<(), E>,
) -> Result<Option<Vec<R>>, E> {
    let workers = threads.clamp(1, jobs.len().max(1));
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let (send, receive) = mpsc::channel();
    let mut done: Vec<Option<Result<R, E>>> = jobs.iter().map(|_| None).collect();
    let mut heard = Ok(());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let send = send.clone();
            let (work, next, failed) = (&work, &next, &failed);
            scope.spawn(move || {
                // One run one thread: two runs side by side use two cores better than two threads
                // of one small run do.
                let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().ok();
                while !failed.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(i) else { return };
                    let begun = Instant::now();
                    let result = match (&pool, workers) {
                        (Some(pool), 2..) => pool.install(|| work(job)),
                        _ => work(job),
                    };
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    let seconds = begun.elapsed().as_secs_f64();
                    if send.send((i, seconds, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        for (i, seconds, result) in receive {
            if let (Ok(result), true) = (&result, heard.is_ok()) {
                heard = ended(i, seconds, result);
                failed.fetch_or(heard.is_err(), Ordering::Relaxed);
            }
            done[i] = Some(result);
        }
    });
    heard?;
    // A failure goes before what was left undone because of it.
    let mut results = Vec::with_capacity(jobs.len());
    for result in done.into_iter().flatten() {
        results.push(result?);
    }
    Ok(Some(results).filter(|r| r.len() == jobs.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn results_keep_the_order_of_the_jobs_whoever_ends_first() {
        let jobs: Vec<u64> = (0..20).collect();
        let work = |j: &u64| {
            std::thread::sleep(Duration::from_millis(20 - j));
            Ok::<u64, ()>(j * j)
        };
        for threads in [1, 4] {
            let mut heard = Vec::new();
            let stop = AtomicBool::new(false);
            let results = side_by_side(&jobs, threads, &stop, work, |i, _, r| {
                heard.push((i, *r));
                Ok(())
            });
            assert_eq!(results, Ok(Some(jobs.iter().map(|j| j * j).collect())));
            heard.sort_unstable();
            assert!(heard.iter().all(|(i, r)| *r == (i * i) as u64) && heard.len() == 20);
        }
    }

    #[test]
    fn a_failure_or_a_stop_leaves_the_rest() {
        let jobs: Vec<u32> = (0..100).collect();
        let begun = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let work = |j: &u32| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *j == 3 { Err("three") } else { Ok(*j) }
        };
        let failed = side_by_side(&jobs, 1, &stop, work, |_, _, _| Ok(()));
        assert_eq!((failed, begun.load(Ordering::Relaxed)), (Err("three"), 4));
        let deaf = side_by_side(&jobs, 1, &stop, |j| Ok(*j), |_, _, _| Err("full"));
        assert_eq!(deaf, Err("full"));
        // What was begun is ended, and nothing more is begun.
        begun.store(0, Ordering::Relaxed);
        let work = |j: &u32| {
            begun.fetch_add(1, Ordering::Relaxed);
            stop.fetch_or(*j == 5, Ordering::Relaxed);
            Ok::<u32, ()>(*j)
        };
        let stopped = side_by_side(&jobs, 1, &stop, work, |_, _, _| Ok(()));
        assert_eq!((stopped, begun.load(Ordering::Relaxed)), (Ok(None), 6));
    }
}
