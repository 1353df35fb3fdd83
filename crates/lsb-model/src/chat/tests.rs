//! Templates in the constructs of published ones, their exact texts, and templates that mean harm.

use super::*;
use tempfile::TempDir;

const TOKENS: &str = r#""bos_token":"<s>","eos_token":{"content":"</s>"}"#;

fn open(files: &[(&str, &str)]) -> Result<Option<ChatTemplate>> {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    ChatTemplate::open(dir.path())
}

fn template(source: &str) -> ChatTemplate {
    let config = format!("{{{TOKENS}}}");
    open(&[("chat_template.jinja", source), ("tokenizer_config.json", &config)]).unwrap().unwrap()
}

fn say(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|(role, content)| Message::new(*role, *content)).collect()
}

fn talk() -> Vec<Message> {
    say(&[("system", "Be brief. "), ("user", " Hi <b>"), ("assistant", "Hello\n"), ("user", "Bye")])
}

#[track_caller]
fn fails(source: &str, words: &[&str]) {
    let error = template(source).render(&talk(), true).unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn llama_3() {
    let source = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = \
        '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' \
        %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
    let expected = "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
        <|start_header_id|>user<|end_header_id|>\n\nHi <b><|eot_id|>\
        <|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>\
        <|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>";
    let template = template(source);
    assert_eq!(template.render(&talk(), false).unwrap(), expected);
    let prompted = format!("{expected}<|start_header_id|>assistant<|end_header_id|>\n\n");
    assert_eq!(template.render(&talk(), true).unwrap(), prompted);
}

#[test]
fn llama_3_2_date_and_tools() {
    let source = r#"{{- bos_token }}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "?" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|system|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|' + message['role'] + '|>' + message['content'] | trim }}
    {%- endif %}
{%- endfor %}
"#;
    let mut template = template(source);
    let expected =
        "<s><|system|>\n\nToday Date: 26 Jul 2024\n\nBe brief.<|user|>Hi <b><|assistant|>Hello<|user|>Bye";
    assert_eq!(template.render(&talk(), true).unwrap(), expected);
    template.set_time(951_782_400);
    assert!(template.render(&talk(), true).unwrap().contains("29 Feb 2000"));
}

#[test]
fn chatml() {
    let source = r#"{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"#;
    let template = template(source);
    let messages = say(&[("user", "Hi"), ("assistant", "<think>\nhm\n</think>\n\nHello"), ("user", "Bye")]);
    assert_eq!(
        template.render(&messages, true).unwrap(),
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
         <|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn mistral_refuses_wrong_roles() {
    let source = "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 \
        == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}\
        {% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}\
        {% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}\
        {{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}";
    let template = template(source);
    let messages = say(&[("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")]);
    assert_eq!(template.render(&messages, true).unwrap(), "<s>[INST] Hi [/INST]Hello</s>[INST] Bye [/INST]");
    let error = template.render(&say(&[("assistant", "Hi")]), true).unwrap_err().to_string();
    assert_eq!(
        error,
        "chat_template.jinja: the chat template refuses these messages: Conversation roles must alternate \
         user/assistant/user/assistant/..."
    );
}

#[test]
fn gemma() {
    let source = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not \
        supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}\
        {% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
        {{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}";
    let expected = "<s><start_of_turn>user\nHi <b><end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n\
        <start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n";
    assert_eq!(template(source).render(&talk()[1..], true).unwrap(), expected);
    fails(source, &["refuses these messages: System role not supported"]);
}

#[test]
fn blocks_are_trimmed_as_in_transformers() {
    let source = "{% for m in messages %}\n  {% if loop.first %}\nfirst\n  {% endif %}\n{{ m.role }}\n\
        {% endfor %}\n{% generation %}\n{{ 'x' }}{%- endgeneration -%}\n end\n";
    assert_eq!(template(source).render(&say(&[("a", ""), ("b", "")]), false).unwrap(), "first\na\nb\nxend");
}

#[test]
fn json_is_pythons() {
    let source = r#"{{ {"b": [1, 2.5, "<é>'"], "a": none, "c": {}} | tojson }} {{ [1] | tojson(indent=2) }}"#;
    let expected = "{\"b\": [1, 2.5, \"<é>'\"], \"a\": null, \"c\": {}} [\n  1\n]";
    assert_eq!(template(source).render(&[], false).unwrap(), expected);
}

#[test]
fn templates_are_found_in_their_order() {
    let config = format!(r#"{{{TOKENS},"chat_template":"from config {{{{ eos_token }}}}"}}"#);
    let render = |files: &[(&str, &str)]| open(files).unwrap().unwrap().render(&[], false).unwrap();
    let config = ("tokenizer_config.json", config.as_str());
    let json = ("chat_template.json", r#"{"chat_template":"from json {{ bos_token }}"}"#);
    assert_eq!(render(&[config]), "from config </s>");
    assert_eq!(render(&[config, json]), "from json <s>");
    assert_eq!(render(&[config, json, ("chat_template.jinja", "from jinja")]), "from jinja");
    let named = r#"{"chat_template":[{"name":"rag","template":"r"},{"name":"default","template":"d"}]}"#;
    assert_eq!(render(&[("tokenizer_config.json", named)]), "d");
    assert!(open(&[]).unwrap().is_none());
    assert!(open(&[("tokenizer_config.json", r#"{"chat_template":null}"#)]).unwrap().is_none());
    let none = r#"{"chat_template":[{"name":"rag","template":"r"},{"name":"tool_use","template":"d"}]}"#;
    let error = open(&[("tokenizer_config.json", none)]).unwrap_err().to_string();
    assert!(error.contains("[T4]") && error.contains("rag, tool_use"), "{error}");
    for wrong in [r#"{"chat_template":7}"#, r#"{"chat_template":"a","chat_template":"b"}"#] {
        assert!(open(&[("tokenizer_config.json", wrong)]).is_err());
    }
}

#[test]
fn broken_and_hostile_templates_end_in_an_error() {
    let error = open(&[("chat_template.jinja", "a\n{% if %}")]).unwrap_err().to_string();
    assert!(error.contains("[T10] chat_template.jinja") && error.contains("line 2"), "{error}");
    let deep = format!(
        "{}1{}",
        "{{ (".repeat(1).as_str().to_owned() + &"(".repeat(100_000),
        ")".repeat(100_001) + " }}"
    );
    assert!(open(&[("chat_template.jinja", &deep)]).is_err());
    let long = "x".repeat(MAX_TEMPLATE + 1);
    assert!(open(&[("chat_template.jinja", &long)]).unwrap_err().to_string().contains("[T10]"));
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    fails(loops, &["did not end within"]);
    fails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", &["failed"]);
    fails("{% set x = 'x' * 90000000 %}{{ x }}{{ x }}", &["more than"]);
    fails("{{ messages[0].content.nothing() }}", &["failed in line 1"]);
    fails("{{ nothing.at.all }}", &["undefined"]);
    fails("{% include '/etc/passwd' %}", &["failed"]);
}

#[test]
fn dates_are_those_of_the_calendar() {
    let all = "%Y %y %m %-d %e %B %b %A %a %H %I %p %M %S %j %F %T %% %Q";
    assert_eq!(
        clock::strftime(clock::DEFAULT, all),
        "2024 24 07 26 26 July Jul Friday Fri 00 12 AM 00 00 208 2024-07-26 00:00:00 % %Q"
    );
    assert_eq!(
        clock::strftime(-1, all),
        "1969 69 12 31 31 December Dec Wednesday Wed 23 11 PM 59 59 365 1969-12-31 23:59:59 % %Q"
    );
    assert_eq!(clock::strftime(0, "%-d%"), "1%");
}
