"""The harness: data, models, training, evaluation, cost, results, tables, reports, command line."""
