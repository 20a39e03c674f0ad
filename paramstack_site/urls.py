"""Routes: console, admin, REST API. `/v1` belongs to the gateway (`asgi.py`)."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from paramstack_site import views
from tenants.views import members

urlpatterns = [
    path("", views.home, name="home"),
    path("login/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("preferences/", views.preferences, name="preferences"),
    path("invitations/<str:token>/", members.invitation, name="invitation"),
    path("t/<slug:slug>/", views.overview, name="overview"),
    path("t/<slug:slug>/status/", views.status, name="status"),
    path("t/<slug:slug>/", include("tenants.urls")),
    path("t/<slug:slug>/", include("inference.urls")),
    path("t/<slug:slug>/", include("training.urls")),
    path("api/v1/", include("paramstack_site.api")),
    path("admin/", admin.site.urls),
]
handler500 = "paramstack_site.views.error"
