//! The OpenAPI document, made from the routes as they are.

use axum::Json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ComponentsBuilder, Content, Info, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, Response,
    ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::gate::Place;
use super::problem::Problem;
use super::{Api, table};

/// What any route may answer besides its own.
const COMMON: [(&str, &str); 9] = [
    ("400", "The request does not fit the schema."),
    ("401", "There is no key, or none that is known."),
    ("403", "The key lacks the scope."),
    ("408", "The request took too long to arrive."),
    ("413", "The body is longer than 64 KiB."),
    ("415", "The body is of another type."),
    (
        "422",
        "The request fits the schema and still cannot be meant.",
    ),
    (
        "429",
        "Too many requests; Retry-After says how long to wait.",
    ),
    ("503", "This server cannot do that now."),
];

/// The OpenAPI document of this version.
#[must_use]
pub fn openapi() -> OpenApi {
    let mut document = OpenApiRouter::<Api>::with_openapi(frame());
    for route in table() {
        let place = route.place;
        let mut one = OpenApiRouter::<Api>::default().routes(route.router);
        for item in one.get_openapi_mut().paths.paths.values_mut() {
            for operation in operations(item) {
                complete(operation, place);
            }
        }
        document = document.merge(one);
    }
    document.into_openapi()
}

/// The document without its routes.
fn frame() -> OpenApi {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic).build();
    let query = |name: &str| SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::new(name)));
    let components = ComponentsBuilder::new()
        .schema(Problem::name(), Problem::schema())
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .security_scheme("basic", SecurityScheme::Http(basic))
        .security_scheme("apiKey", query("apiKey"))
        .security_scheme("secretKey", query("secretKey"))
        .security_scheme("key", query("key"))
        .build();
    let mut info = Info::new("taciturn", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Mints credentials for a TURN server, revokes them, and shows what is live. It knows \
         users by what the platform calls them and answers with no address of anybody's."
            .to_owned(),
    );
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem {
        get,
        put,
        post,
        delete,
        ..
    } = item;
    [get, put, post, delete].into_iter().flatten()
}

/// Adds what all operations have in common, and where their key stands.
fn complete(operation: &mut Operation, place: Place) {
    let mut keys = vec!["bearer"];
    match place {
        Place::Bearer => {}
        Place::Basic => keys.push("basic"),
        Place::Query(name) => keys.push(name),
    }
    let keys = keys.into_iter();
    let keys = keys.map(|name| SecurityRequirement::new(name, Vec::<String>::new()));
    operation.security = Some(keys.collect());
    for (status, description) in COMMON {
        let responses = &mut operation.responses.responses;
        if !responses.contains_key(status) {
            responses.insert(status.to_owned(), RefOr::T(problem(description)));
        }
    }
}

fn problem(description: &str) -> Response {
    let content = Content::new(Some(Ref::from_schema_name(Problem::name())));
    ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content)
        .build()
}

/// `GET /v1/openapi.json`
pub(super) async fn serve() -> Json<OpenApi> {
    Json(openapi())
}
