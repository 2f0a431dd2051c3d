package local

import (
	"slices"
	"testing"
)

// What telemetry needs reaches every process, and nothing that its collector is to know somebody by: each tenant's would hold the token of all.
func TestNoTokenOfTheOperatorsReachesAProcess(t *testing.T) {
	const token = "e30.canary"
	told := []string{
		"GOMEMLIMIT=1GiB", "OTEL_EXPORTER_OTLP_CERTIFICATE=/etc/ssl/ca.pem", "OTEL_EXPORTER_OTLP_ENDPOINT=https://collector.example:4318", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_RESOURCE_ATTRIBUTES=deployment.environment=prod", "OTEL_TRACES_SAMPLER=always_on", "TZ=UTC",
	}
	withheld := map[string]string{
		"OTEL_EXPORTER_OTLP_CLIENT_KEY": "/etc/collector/client.key", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer " + token,
		"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://writer:" + token + "@collector.example/v1/metrics", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-token=" + token,
	}
	environ := append([]string{"AWS_SECRET_ACCESS_KEY=" + token, "HOME=/home/operator"}, told...)
	var names []string
	for name, value := range withheld {
		environ, names = append(environ, name+"="+value), append(names, name)
	}
	slices.Sort(names)
	if got := passedOn(environ); !slices.Equal(got, told) {
		t.Errorf("a process is told %q, want %q", got, told)
	}
	if got := Withheld(environ); !slices.Equal(got, names) {
		t.Errorf("withheld are %q, want %q", got, names)
	}
}
