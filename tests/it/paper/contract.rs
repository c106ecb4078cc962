//! Every body of the paper services against the shapes that the real ones report themselves.

use serde_json::{Value, json};

use super::APPLE;
use crate::support::{Paper, eventually, shared_file};

/// What of `value` is not as `schema` says; references are looked up in `api`.
fn mismatches(api: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let named =
            api.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} is not there"));
        return mismatches(api, named, value, place);
    }
    if let Some(options) = schema["anyOf"].as_array() {
        let fits = options.iter().any(|option| mismatches(api, option, value, place).is_empty());
        return if fits { Vec::new() } else { vec![format!("{place}: {value} fits none of {options:?}")] };
    }
    let is_of_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some(other) => panic!("{place} has the type {other}"),
        None => true,
    };
    let mut found = Vec::new();
    if !is_of_type {
        found.push(format!("{place}: {value} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        found.push(format!("{place}: {value} is none of the words"));
    }
    if schema["format"] == "date-time" {
        let is_moment = value.as_str().is_some_and(|text| text.contains('T') && text.ends_with('Z'));
        if !is_moment {
            found.push(format!("{place}: {value} is no moment"));
        }
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if value.get(required.as_str().unwrap()).is_none() {
            found.push(format!("{place} lacks {required}"));
        }
    }
    if let (Some(properties), Some(fields)) = (schema["properties"].as_object(), value.as_object()) {
        for (key, field) in fields {
            match properties.get(key) {
                Some(property) => found.extend(mismatches(api, property, field, &format!("{place}.{key}"))),
                None if schema["additionalProperties"] == true => {}
                None => found.push(format!("{place}.{key} is not in the recorded interface")),
            }
        }
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        if !schema["items"].is_null() {
            found.extend(mismatches(api, &schema["items"], item, &format!("{place}[{number}]")));
        }
    }
    found
}

fn check(api: &Value, schema: &str, body: &Value) {
    let reference = json!({ "$ref": format!("#/components/schemas/{schema}") });
    let found = mismatches(api, &reference, body, schema);
    assert!(found.is_empty(), "{found:#?}\n{body:#}");
}

fn recorded_api(name: &str) -> Option<Value> {
    let path = shared_file(&format!("data/{name}.json"))?;
    Some(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

#[tokio::test]
async fn bodies_have_the_shapes_that_the_real_services_report() {
    let (Some(gateway), Some(signals)) =
        (recorded_api("openapi_execution_gateway"), recorded_api("openapi_signal_service"))
    else {
        return;
    };
    let paper = Paper::start(&[]);

    let limit = concat!(
        r#"{"symbol":"MSFT","side":"sell","qty":5,"order_type":"limit","#,
        r#""limit_price":"0.505","time_in_force":"gtc"}"#
    );
    for order in [APPLE, APPLE, limit] {
        let (status, body) = paper.post("/api/v1/orders", order).await;
        assert_eq!(status, 200, "{body}");
        check(&gateway, "OrderResponse", &body);
    }
    eventually("both are filled", async || (paper.ledger().await["totals"]["fills"] == 2).then_some(()))
        .await;
    for id in paper.ledger().await["orders"].as_object().unwrap().keys() {
        let (_, order) = paper.get(&format!("/api/v1/orders/{id}")).await;
        check(&gateway, "OrderDetail", &order);
        assert_eq!(order["metadata"]["fills"].as_array().unwrap().len(), 1);
    }
    check(&gateway, "PositionsResponse", &paper.get("/api/v1/positions").await.1);
    check(&gateway, "ConfigResponse", &paper.get("/api/v1/config").await.1);
    check(&gateway, "HealthResponse", &paper.get("/health").await.1);
    for price in paper.get("/api/v1/market_prices").await.1.as_array().unwrap() {
        check(&gateway, "MarketPricePoint", price);
    }
    check(&gateway, "HTTPValidationError", &paper.post("/api/v1/orders", "{}").await.1);

    let answer = paper.signals(r#"{"symbols":["AAPL","MSFT"]}"#).await.1;
    check(&signals, "SignalResponse", &answer);
    check(&signals, "HTTPValidationError", &paper.signals(r#"{"symbols":[]}"#).await.1);
    let ready: Value =
        paper.client.get(format!("{}/ready", paper.signals)).send().await.unwrap().json().await.unwrap();
    check(&signals, "HealthResponse", &ready);
}

/// Every route that the paper services have exists in the recorded interface, with its method.
#[tokio::test]
async fn routes_are_those_of_the_real_services() {
    let (Some(gateway), Some(signals)) =
        (recorded_api("openapi_execution_gateway"), recorded_api("openapi_signal_service"))
    else {
        return;
    };
    let has = |api: &Value, path: &str, method: &str| !api["paths"][path][method].is_null();

    for (path, method) in [
        ("/", "get"),
        ("/health", "get"),
        ("/api/v1/orders", "post"),
        ("/api/v1/orders/{client_order_id}", "get"),
        ("/api/v1/orders/{client_order_id}/cancel", "post"),
        ("/api/v1/positions", "get"),
        ("/api/v1/config", "get"),
        ("/api/v1/market_prices", "get"),
    ] {
        assert!(has(&gateway, path, method), "{method} {path}");
    }
    for (path, method) in
        [("/", "get"), ("/health", "get"), ("/ready", "get"), ("/api/v1/signals/generate", "post")]
    {
        assert!(has(&signals, path, method), "{method} {path}");
    }
}
