"""Reads metrics from standard input with Prometheus' own parser, in the format that the argument names, and writes every sample
as a line of JSON: name, labels, value, and the type of its family."""

import json
import sys

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

text = sys.stdin.read()
parse = openmetrics.text_string_to_metric_families if sys.argv[1] == "openmetrics" else parser.text_string_to_metric_families
for family in parse(text):
    assert family.documentation, family.name
    for sample in family.samples:
        print(json.dumps([sample.name, sample.labels, sample.value, family.type]))
