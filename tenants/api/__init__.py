"""REST of a tenant, by room. `rest` guards each view; `paramstack_site.api` says the addresses."""
