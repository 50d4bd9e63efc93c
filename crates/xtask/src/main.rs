//! Isopod: xtask.

mod schema;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("schema") => schema::run(args),
        other => anyhow::bail!("unknown subcommand {other:?}\nhint: schema"),
    }
}
