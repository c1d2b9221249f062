"""Parses metrics from standard input with Prometheus' own parser, and writes each sample as a line
of JSON: name, labels, value, and the type of its family.

usage: read-metrics.py text|openmetrics
"""

import json
import sys

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

text = sys.stdin.read()
module = openmetrics if sys.argv[1] == "openmetrics" else parser
for family in module.text_string_to_metric_families(text):
    assert family.documentation, family.name
    for sample in family.samples:
        print(json.dumps([sample.name, sample.labels, sample.value, family.type]))
