use ebb_learn::*;
use std::sync::atomic::AtomicBool;
fn main() {
    let path = std::env::args().nth(1).unwrap();
    let sets: Vec<(String, String)> = std::env::args().skip(2).filter_map(|a| a.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()))).collect();
    let r = Recipe::read(path.as_ref(), &sets).unwrap_or_else(|e| panic!("{e}"));
    let dir = ebb_data::data_dir().unwrap();
    let t = std::time::Instant::now();
    let out = std::env::var("OUT").ok();
    let s = learn(&r, out.as_deref().map(std::path::Path::new), &mut Around { data_dir: &dir, progress: &mut Silent, stop: &AtomicBool::new(false) }).unwrap_or_else(|e| panic!("{e}"));
    println!("{} {:.2}s train {:.2}s steps {:?}", s.method, t.elapsed().as_secs_f64(), s.cost.train_seconds.unwrap(), s.cost.steps);
    for row in &s.matrix { println!("{}", row.iter().map(|v| format!("{:6.2}", 100.0 * v.unwrap_or(f64::NAN))).collect::<Vec<_>>().join(" ")); }
    for n in s.numbers.iter().take(40) { println!("{} {:.4} [{:?} {:?}] n={} {:?}", n.name, n.value, n.ci_low, n.ci_high, n.n, n.unit); }
}
