"""The load generator behind `simile bench`: asks over HTTP, measures, judges, recommends."""
