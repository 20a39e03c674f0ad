from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "paramstack_site"
