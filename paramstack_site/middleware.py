"""What every request passes: Content-Security-Policy, language, and the tenant of `/t/<slug>/...`."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils import translation

from tenants import access

Handler = Callable[[HttpRequest], HttpResponse]

# The hash is that of the empty string: Plotly adds one empty <style> element.
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
POLICY = (
    f"default-src 'self'; style-src 'self' {EMPTY_STYLE}; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# django-unfold's admin uses Alpine.js and inline styles; it is reachable by operators only.
ADMIN_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def content_security_policy(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        policy = ADMIN_POLICY if request.path.startswith("/admin/") else POLICY
        response.headers.setdefault("Content-Security-Policy", policy)
        return response

    return middleware


def language(get_response: Handler) -> Handler:
    """The user's language; before login the cookie's, and Turkish first (Accept-Language is not asked)."""

    def middleware(request: HttpRequest) -> HttpResponse:
        chosen = request.user.language if request.user.is_authenticated else request.COOKIES.get("language", "tr")
        chosen = chosen if chosen in {"tr", "en"} else "tr"
        with translation.override(chosen):
            request.LANGUAGE_CODE = chosen
            return get_response(request)

    return middleware


class tenant:
    """Sets `request.tenant` and `request.member` for addresses under `/t/<slug>/`; a stranger gets 404."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: object, args: object, kwargs: dict[str, str]
    ) -> HttpResponse | None:
        if request.path.startswith("/t/") and "slug" in kwargs:
            return access.enter(request, kwargs.pop("slug"))
        return None
