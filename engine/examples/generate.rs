//! The engine as a library: loads a model, answers one prompt as it comes and several in one batch.
//!
//! ```sh
//! cargo run --release -p tokenflow-engine --example generate [FOLDER]
//! ```

use std::io::Write;

use futures_util::future::try_join_all;
use tokenflow_engine::{Engine, EngineConfig, Message, Params};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = std::env::args().nth(1).map_or_else(EngineConfig::demo, EngineConfig::new);
    let engine = Engine::load(config)?;

    let chat = vec![Message::user("What is ownership?")];
    let mut output = engine.stream(chat, &engine.default_params().max_tokens(64))?;
    while let Some(pieces) = output.next().await {
        for piece in pieces? {
            print!("{}", piece.text);
            std::io::stdout().flush()?;
            if let Some(reason) = piece.finish {
                println!("\n-- {reason:?}");
            }
        }
    }

    let params = Params { stop: vec![".".to_owned()], ..Params::greedy().max_tokens(32) };
    let prompts = ["A trait is", "A closure is", "A vector is"];
    let answers = try_join_all(prompts.map(|prompt| engine.generate(prompt, params.clone()))).await?;
    for (prompt, answer) in prompts.iter().zip(answers) {
        println!("{prompt}{} -- {:?}, {} tokens", answer.text, answer.finish_reason, answer.completion_tokens);
    }
    Ok(())
}
