use unskew_sdk::prelude::*;

#[derive(Row)]
struct In {
    value: i64,
}

#[derive(Row)]
struct Out {
    value: i64,
}

impl In {
    #[transform(on_demand)]
    fn method(self) -> Out {
        Out { value: self.value }
    }
}

fn main() {}
