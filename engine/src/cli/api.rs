use std::path::PathBuf;

use clap::Args;

use crate::api::{Cidr, ProxyHeader, ReasoningParser, ToolCallParser};

/// Flags of the HTTP API: how chats are read, and who may come by which way.
#[derive(Args, Debug, Clone, Default)]
pub struct ApiArgs {
    /// Let the model decide whether to call tools (`tool_choice: "auto"`); needs --tool-call-parser
    #[arg(long, requires = "tool_call_parser")]
    pub enable_auto_tool_choice: bool,
    /// How the model writes the calls that it decides on
    #[arg(long, value_enum, value_name = "PARSER")]
    pub tool_call_parser: Option<ToolCallParser>,
    /// How the model marks its reasoning, which then comes apart from the content
    #[arg(long, value_enum, value_name = "PARSER")]
    pub reasoning_parser: Option<ReasoningParser>,
    /// Take chat templates from requests; anyone who may ask can then run a template
    #[arg(long)]
    pub trust_request_chat_template: bool,
    /// Keys, one of which every request under /v1 must bring
    #[arg(long, num_args = 1.., env = "VLLM_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: Vec<String>,
    /// Certificate chain in PEM; with --ssl-keyfile, the server speaks HTTPS
    #[arg(long, requires = "ssl_keyfile", value_name = "FILE")]
    pub ssl_certfile: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, requires = "ssl_certfile", value_name = "FILE")]
    pub ssl_keyfile: Option<PathBuf>,
    /// Path under which a proxy publishes the server, such as /llm; requests may come with and without it
    #[arg(long, value_name = "PATH")]
    pub root_path: Option<String>,
    /// Network of proxies that tell the client's connection in --proxy-header; may be given several times [default: none is believed]
    #[arg(long, value_name = "CIDR")]
    pub trusted_proxy: Vec<Cidr>,
    /// The one header that these proxies write, whatever the client sent in it; no other is read
    #[arg(long, value_enum, default_value_t, value_name = "HEADER", requires = "trusted_proxy")]
    pub proxy_header: ProxyHeader,
    /// Origins whose pages may read answers, as a JSON list
    #[arg(long, default_value = r#"["*"]"#, value_name = "JSON", value_parser = json_list)]
    pub allowed_origins: JsonList,
    /// Methods that such pages may use, as a JSON list
    #[arg(long, default_value = r#"["*"]"#, value_name = "JSON", value_parser = json_list)]
    pub allowed_methods: JsonList,
    /// Headers that such pages may send, as a JSON list
    #[arg(long, default_value = r#"["*"]"#, value_name = "JSON", value_parser = json_list)]
    pub allowed_headers: JsonList,
    /// Let such pages send cookies and other credentials
    #[arg(long)]
    pub allow_credentials: bool,
    /// Do not serve the page at / to chat with
    #[arg(long)]
    pub no_chat_page: bool,
    /// Return X-Request-Id with every answer, which this server always does
    #[arg(long)]
    pub enable_request_id_headers: bool,
}

/// A list of strings in one argument, as vLLM takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonList(pub Vec<String>);

fn json_list(text: &str) -> Result<JsonList, String> {
    serde_json::from_str(text).map(JsonList).map_err(|_| "must be a JSON list of strings, such as '[\"*\"]'".to_owned())
}
