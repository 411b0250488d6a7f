use unskew_sdk::prelude::*;

#[derive(Row)]
struct In {
    value: i64,
}

#[derive(Row)]
struct Out {
    value: i64,
}

#[transform(on_demand)]
async fn waits(row: In) -> Out {
    Out { value: row.value }
}

#[transform(on_demand)]
unsafe fn dares(row: In) -> Out {
    Out { value: row.value }
}

#[transform(on_demand)]
extern "C" fn exports(row: In) -> Out {
    Out { value: row.value }
}

#[transform(on_demand)]
fn generic<T: Into<In>>(row: T) -> Out {
    Out { value: row.into().value }
}

fn main() {}
