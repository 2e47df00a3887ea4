from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

from examples.docs.metrics import say
from telex import Telex
from telex.telemetry.opentelemetry import OpenTelemetry


def make() -> Telex:
    # In production an OTLPMetricExporter, of the package opentelemetry-exporter-otlp.
    set_meter_provider(MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())]))
    return Telex([say], plugins=[OpenTelemetry()])
