//! A worker that keeps a total between calls: `workhall call counter add 5`.

use worker_host::Worker;

fn main() -> worker_host::Result {
    Worker::new(0_i64)
        .method("add", |total, _ctx, (amount,): (i64,)| {
            *total = total.checked_add(amount).ok_or("the total would not fit into 64 bits")?;
            Ok(*total)
        })
        .method("total", |total, _ctx, ()| Ok(*total))
        .method("end", |_total, ctx, ()| Ok(ctx.kill_self().map(drop)?))
        .run()
}
