//! `measure ROUNDS SETTLE_MS USAGE_FILE`: runs the commands on standard input again and again and prints what each costs.
//!
//! A line is `LABEL TAB PROGRAM TAB ARGUMENT...`; in an argument `{}` stands for the round's number. A round runs every
//! line in its order, so whatever disturbs the machine disturbs all of them alike. Lines whose label is `-` are run and
//! not measured. For each other label one line is printed: LABEL, the median CPU and the median wall time, microseconds.
//! CPU is that of every process in the cgroup whose `cpuacct.usage` or `cpu.stat` USAGE_FILE is, until SETTLE_MS after
//! the command has ended: what daemons still do then belongs to it. Round 0 is not counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

struct Line {
    label: String,
    words: Vec<String>,
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("measure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rounds, settle, usage] = arguments.as_slice() else {
        return Err("usage: measure ROUNDS SETTLE_MS USAGE_FILE <commands".to_owned());
    };
    let number = |text: &String| text.parse::<u32>().map_err(|e| format!("{text}: {e}"));
    let (rounds, settle) = (number(rounds)?, Duration::from_millis(number(settle)?.into()));
    let usage = File::open(usage).map_err(|e| format!("{usage}: {e}"))?;
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|e| format!("standard input: {e}"))?;
    let lines: Vec<Line> =
        text.lines().filter(|line| !line.is_empty()).map(parse).collect::<Result<_, _>>()?;

    let mut costs: BTreeMap<usize, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
    for round in 0..=rounds {
        for (index, line) in lines.iter().enumerate() {
            let before = cpu(&usage)?;
            let began = Instant::now();
            run(&line.words, round)?;
            let wall = began.elapsed();
            std::thread::sleep(settle);
            if round > 0 && line.label != "-" {
                let (cpus, walls) = costs.entry(index).or_default();
                cpus.push(cpu(&usage)? - before);
                walls.push(wall.as_micros() as u64);
            }
        }
    }
    for (index, (cpus, walls)) in costs {
        println!("{} {} {}", lines[index].label, median(cpus), median(walls));
    }
    Ok(())
}

fn parse(line: &str) -> Result<Line, String> {
    let mut words = line.split('\t').map(str::to_owned);
    let label = words.next().unwrap_or_default();
    let words: Vec<String> = words.collect();
    if words.is_empty() { Err(format!("no command in {line:?}")) } else { Ok(Line { label, words }) }
}

fn run(words: &[String], round: u32) -> Result<(), String> {
    let words: Vec<String> = words.iter().map(|word| word.replace("{}", &round.to_string())).collect();
    let mut command = Command::new(&words[0]);
    let said = tempfile::tempfile().map_err(|e| e.to_string())?;
    let stderr = said.try_clone().map_err(|e| e.to_string())?;
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let status = command.status().map_err(|e| format!("{}: {e}", words[0]))?;
    if status.success() {
        return Ok(());
    }
    let mut text = vec![0; 4096];
    let count = said.read_at(&mut text, 0).unwrap_or_default();
    Err(format!("{}: {status}: {}", words.join(" "), String::from_utf8_lossy(&text[..count])))
}

/// CPU microseconds used so far: `cpuacct.usage` holds nanoseconds, `cpu.stat` names its microseconds.
fn cpu(usage: &File) -> Result<u64, String> {
    let mut text = vec![0; 4096];
    let count = usage.read_at(&mut text, 0).map_err(|e| format!("read the usage: {e}"))?;
    let text = String::from_utf8_lossy(&text[..count]);
    let named = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let value = match named {
        Some(value) => value.parse::<u64>(),
        None => text.trim().parse::<u64>().map(|nanoseconds| nanoseconds / 1000),
    };
    value.map_err(|e| format!("{text:?} is no usage: {e}"))
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}
