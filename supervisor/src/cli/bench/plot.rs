//! `--plot`: what a message costs while there are ever more names, pending messages and connections.

use std::fmt::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Context as _;
use workhall_protocol::args::Payload;
use workhall_protocol::messages::Call;
use workhall_protocol::wire::Encoding;

use super::Run;
use super::figures::{Rounds, Row, Unit, median};
use super::load::{Job, Lane, Load};
use super::server::{Server, ask, kill};
use super::standing::{make_names, post};
use super::words::{Answer, arguments};

/// Messages of a round, unless it is said how many.
const MESSAGES: u64 = 100_000;
/// Connections that are left for what is measured, and for the descriptors that a supervisor keeps for itself: one that
/// it has no place for would wait for ever.
const CONNECTIONS_BESIDE: u64 = 100;
/// The most that a supervisor takes from one user as we configure it.
const CONNECTIONS_MAX: u64 = 10_000;

/// What there is ever more of.
struct Series {
    name: &'static str,
    colour: &'static str,
    points: Vec<(u64, Rounds)>,
}

/// Measures and writes the picture.
pub fn draw(run: &mut Run, file: &Path) -> anyhow::Result<()> {
    let most = run.options.most;
    let steps = |most: u64| (1..=6).map(|power| 10_u64.pow(power)).filter(move |count| *count <= most);
    // Ours and theirs are half of the descriptors each.
    let connections = (run.descriptors / 2).min(CONNECTIONS_MAX).saturating_sub(CONNECTIONS_BESIDE).min(most);
    let mut more: Vec<u64> = steps(connections).collect();
    if more.last().is_none_or(|last| *last < connections) {
        more.push(connections);
    }
    run.progress.set_length((2 * steps(most).count() + more.len()) as u64);

    let server = Server::start(&run.dir, run.options.window)?;
    let (mut client, mut there) = (server.client()?, 0);
    let mut names = Series { name: "names without a process", colour: "#0072b2", points: Vec::new() };
    for count in steps(most) {
        make_names(&mut client, &server, there..count, run)?;
        there = count;
        names.points.push((count, cost(run, &server)?));
    }
    drop((client, server));

    let server = Server::start(&run.dir, run.options.window)?;
    let (mut client, mut there) = (server.client()?, 0);
    let holder = server.name("holder");
    ask(&mut client, &holder, "count", Payload::no_args())?;
    client.call(Call::new(&*holder, "hold", Payload::no_args()))?;
    let args = arguments(Encoding::Binary, run.options.payload[0])?;
    let mut pending = Series { name: "messages pending", colour: "#d55e00", points: Vec::new() };
    for count in steps(most) {
        post(&mut client, there..count, run, |_| Call::new(&*holder, "take", args.clone()))?;
        there = count;
        pending.points.push((count, cost(run, &server)?));
    }
    kill(&mut client, &holder, true)?;
    drop((client, server));

    let server = Server::start(&run.dir, run.options.window)?;
    let mut open = Vec::new();
    let mut connected = Series { name: "connections", colour: "#009e73", points: Vec::new() };
    for count in more {
        while (open.len() as u64) < count {
            open.push(UnixStream::connect(server.socket())?);
        }
        connected.points.push((count, cost(run, &server)?));
    }

    let series = [names, pending, connected];
    std::fs::write(file, picture(&series)).with_context(|| format!("cannot write {}", file.display()))?;
    for series in series {
        for (count, rounds) in series.points {
            run.row(Row::new(
                "plot",
                format!("{} {}", super::super::output::count(count), series.name),
                Unit::Micros,
                rounds,
            ));
        }
    }
    Ok(())
}

/// Microseconds per message, posted, executed and settled by one worker.
fn cost(run: &mut Run, server: &Server) -> anyhow::Result<Rounds> {
    let lane = Lane::to_worker(
        server.socket(),
        Encoding::Binary,
        &server.name("one"),
        run.options.payload[0],
        Answer::Receipt,
    )?;
    let mut load = Load::new(vec![lane])?;
    let messages = run.options.messages.unwrap_or(MESSAGES);
    let job = Job { messages, window: Some(run.options.window.into()), write_each: false };
    load.run(job, &run.stop)?;
    let mut rounds = Rounds::new();
    for _ in 0..run.options.rounds {
        rounds.push(load.run(job, &run.stop)?.as_secs_f64() * 1e6 / messages as f64);
    }
    run.step();
    Ok(rounds)
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// The field of the points: left, top, right, bottom.
const FIELD: [f64; 4] = [64.0, 48.0, 740.0, 366.0];

/// An SVG: cost upwards from zero, how many to the right, each step ten times as many.
fn picture(series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let decades = points().map(|(count, _)| *count).max().map_or(1.0, |most| (most as f64).log10().ceil().max(2.0));
    let highest = points().flat_map(|(_, rounds)| rounds).copied().fold(0.0, f64::max);
    let unit = grid_step(highest * 1.1);
    let top = (highest * 1.1 / unit).ceil() * unit;
    let [left, upper, right, lower] = FIELD;
    let x = |count: u64| left + ((count as f64).log10() - 1.0) / (decades - 1.0) * (right - left);
    let y = |cost: f64| lower - cost / top * (lower - upper);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"20\" font-size=\"15\">Cost of a message, posted, executed and settled (µs)</text>\n"
    );
    let mut put = |text: std::fmt::Arguments<'_>| svg.write_fmt(text).expect("a string takes all");
    for line in 0..=(top / unit).round() as u32 {
        let cost = f64::from(line) * unit;
        let at = y(cost);
        put(format_args!("<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>\n"));
        let text = (cost * 1000.0).round() / 1000.0;
        put(format_args!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n", left - 8.0, at + 4.5));
    }
    for power in 1..=decades as u32 {
        let (at, text) = (x(10_u64.pow(power)), super::super::output::count(10_u64.pow(power)));
        put(format_args!("<path d=\"M{at:.1} {upper}V{lower}\" stroke=\"#eee\"/>\n"));
        put(format_args!("<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>\n", lower + 20.0));
    }
    for (row, series) in series.iter().enumerate() {
        let colour = series.colour;
        let path: Vec<String> =
            series.points.iter().map(|(count, rounds)| format!("{:.1},{:.1}", x(*count), y(median(rounds)))).collect();
        put(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            path.join(" ")
        ));
        for (count, rounds) in &series.points {
            let low = rounds.iter().copied().fold(f64::INFINITY, f64::min);
            let high = rounds.iter().copied().fold(0.0, f64::max);
            let at = x(*count);
            put(format_args!(
                "<path d=\"M{at:.1} {:.1}V{:.1}\" stroke=\"{colour}\" opacity=\"0.5\"/>\n",
                y(low),
                y(high)
            ));
            put(format_args!("<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>\n", y(median(rounds))));
        }
        let at = left + 230.0 * row as f64;
        put(format_args!("<path d=\"M{at} 36h22\" stroke=\"{colour}\" stroke-width=\"3\"/>\n"));
        put(format_args!("<text x=\"{}\" y=\"40\">{}</text>\n", at + 28.0, series.name));
    }
    let middle = (left + right) / 2.0;
    put(format_args!("<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">", HEIGHT - 10.0));
    put(format_args!(
        "so many there are meanwhile; points are medians, bars go from the lowest to the highest</text>\n</svg>\n"
    ));
    svg
}

/// A round step, of which four to ten fit.
fn grid_step(range: f64) -> f64 {
    let range = if range > 0.0 { range } else { 1.0 };
    let power = 10_f64.powf(range.log10().floor());
    match range / power {
        part if part < 2.0 => power / 5.0,
        part if part < 5.0 => power / 2.0,
        _ => power,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_in_the_picture() {
        let series = |name, points| Series { name, colour: "#000", points };
        let svg = picture(&[
            series("names", vec![(10, vec![1.0, 2.0, 3.0]), (1_000_000, vec![2.0])]),
            series("connections", vec![(10, vec![0.5]), (9_980, vec![0.7])]),
        ]);
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.contains("cx=\"64.0\"") && svg.contains("cx=\"740.0\""), "{svg}");
        assert!(svg.contains(">1,000,000<") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn steps_of_the_grid_are_round() {
        for (range, step) in [(0.9, 0.1), (1.5, 0.2), (3.0, 0.5), (7.0, 1.0), (40.0, 5.0), (0.0, 0.2)] {
            assert!((grid_step(range) - step).abs() < 1e-9, "{range}: {}", grid_step(range));
        }
    }
}
