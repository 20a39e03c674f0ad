"""Console routes of the loop's own records, under `/t/<slug>/`."""

from django.urls import path

from training import views

urlpatterns = [
    path("datasets/", views.datasets, name="datasets"),
    path("datasets/sample/", views.dataset_sample, name="dataset_sample"),
    path("datasets/<uuid:pk>/", views.dataset, name="dataset"),
    path("preferences/", views.rlaif_runs, name="rlaif_runs"),
    path("preferences/<uuid:pk>/", views.rlaif_run, name="rlaif_run"),
    path("preferences/<uuid:pk>/freeze/", views.freeze, name="freeze"),
    path("preferences/pairs/", views.pairs, name="pairs"),
    path("preferences/pairs/<uuid:pk>/", views.pair, name="pair"),
    path("preferences/exports/", views.exports, name="exports"),
    path("review/", views.review, name="review"),
    path("review/undo/", views.review_undo, name="review_undo"),
    path("runs/", views.runs, name="runs"),
    path("runs/<uuid:pk>/", views.run, name="run"),
    path("jobs/<uuid:pk>/cancel/", views.job_cancel, name="job_cancel"),
    path("jobs/<uuid:pk>/retry/", views.job_retry, name="job_retry"),
]
