package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	_ "a3os.app/proto/gen/go/a3os/audit/v1"
	_ "a3os.app/proto/gen/go/a3os/discovery/v1"
	_ "a3os.app/proto/gen/go/a3os/integrations/v1"
	_ "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/redact"
	"a3os.app/libs/telemetry"
)

const canary = "c4nary-9f2b"

func logger(t *testing.T, cfg telemetry.Config) (*slog.Logger, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	l, err := telemetry.NewLogger(&out, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l, &out
}

// carriers are messages of the house with a canary in each secret text of theirs, one at least.
func carriers(t *testing.T) []proto.Message {
	t.Helper()
	var all []proto.Message
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		if !strings.HasPrefix(string(mt.Descriptor().FullName()), "a3os.") || mt.Descriptor().IsMapEntry() {
			return true
		}
		if m := mt.New(); plant(m, 4) {
			all = append(all, m.Interface())
		}
		return true
	})
	if len(all) < 4 {
		t.Fatalf("%d kinds of messages carry a secret", len(all))
	}
	return all
}

func plant(m protoreflect.Message, depth int) bool {
	planted := false
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		switch {
		case redact.Secret(f) && f.Kind() == protoreflect.StringKind && !f.IsList():
			m.Set(f, protoreflect.ValueOfString(canary))
			planted = true
		case f.Message() == nil || f.IsMap() || depth == 0 || !redact.Has(f.Message()):
		case f.IsList():
			planted = plant(m.Mutable(f).List().AppendMutable().Message(), depth-1) || planted
		default:
			planted = plant(m.Mutable(f).Message(), depth-1) || planted
		}
	}
	return planted
}

// valuer is a value that makes its own attributes.
type valuer struct{ m proto.Message }

func (v valuer) LogValue() slog.Value { return slog.GroupValue(slog.Any("inner", v.m)) }

func TestNoSecretOfAMessageIsLogged(t *testing.T) {
	for _, m := range carriers(t) {
		type holder struct{ Inner any }
		for name, write := range map[string]func(*slog.Logger){
			"attribute":         func(l *slog.Logger) { l.Info("x", "request", m) },
			"group":             func(l *slog.Logger) { l.Info("x", slog.Group("a", slog.Group("b", slog.Any("request", m)))) },
			"logger's own":      func(l *slog.Logger) { l.With("request", m).WithGroup("g").With("again", m).Error("x", "third", m) },
			"valuer":            func(l *slog.Logger) { l.Info("x", "request", valuer{m}) },
			"list":              func(l *slog.Logger) { l.Info("x", "requests", []proto.Message{m, m}) },
			"list of anything":  func(l *slog.Logger) { l.Info("x", "requests", []any{1, m}) },
			"map":               func(l *slog.Logger) { l.Info("x", "requests", map[string]proto.Message{"a": m}) },
			"struct":            func(l *slog.Logger) { l.Info("x", "call", holder{m}) },
			"pointer to struct": func(l *slog.Logger) { l.Info("x", "call", &holder{holder{[]holder{{m}}}}) },
			"pointer":           func(l *slog.Logger) { l.Info("x", "request", &m) },
			"debug, not shown":  func(l *slog.Logger) { l.Debug("x", "request", m) },
		} {
			l, out := logger(t, telemetry.Config{Service: "iam", Level: "debug"})
			write(l)
			if strings.Contains(out.String(), canary) {
				t.Errorf("%T as %s: %s", m, name, out)
			}
			if !json.Valid(out.Bytes()) || strings.Contains(out.String(), "!ERROR") || !strings.Contains(out.String(), `"msg":"x"`) {
				t.Errorf("%T as %s makes no line: %s", m, name, out)
			}
		}
	}
}

func TestWhatIsNoSecretIsLogged(t *testing.T) {
	l, out := logger(t, telemetry.Config{Service: "iam", Tenant: "tnt_x"})
	var none *iamv1.User
	l.Info("invited", "response", &iamv1.InviteUserResponse{User: &iamv1.User{Email: "a@example.org"}, SetupCode: canary},
		"error", fmt.Errorf("read: %w", io.EOF), "list", []string{"one", "two"}, "n", 7, "of", map[string]int{"k": 3}, "none", none, "nil", nil,
		"at", time.Unix(0, 0).UTC(), "took", time.Second)
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if line["service"] != "iam" || line["tenant"] != "tnt_x" || line["level"] != "INFO" || line["error"] != "read: EOF" || line["n"] != 7.0 {
		t.Errorf("the line is %s", out)
	}
	if r, _ := line["response"].(string); !strings.Contains(r, "a@example.org") || strings.Contains(r, canary) {
		t.Errorf("the message is logged as %s", r)
	}
	if l, _ := line["list"].([]any); len(l) != 2 {
		t.Errorf("the list is logged as %v", line["list"])
	}
}

func TestLevelDecidesWhatIsLogged(t *testing.T) {
	for level, want := range map[string]int{"": 3, "debug": 4, "info": 3, "warn": 2, "error": 1, "WARN": 2} {
		l, out := logger(t, telemetry.Config{Level: level})
		l.Debug("1")
		l.Info("2")
		l.Warn("3")
		l.Error("4")
		if got := strings.Count(out.String(), "\n"); got != want {
			t.Errorf("level %q logs %d lines, want %d", level, got, want)
		}
	}
}

func TestUnknownLevelIsRefused(t *testing.T) {
	for _, level := range []string{"loud", "trace", "5", " info", "info ", "INFO+2", "warn-1", "off"} {
		_, err := telemetry.NewLogger(io.Discard, telemetry.Config{Level: level})
		if err == nil || !strings.Contains(err.Error(), "debug, info, warn, error") {
			t.Errorf("level %q: %v", level, err)
		}
		if _, err := telemetry.Setup(t.Context(), telemetry.Config{Level: level}); err == nil {
			t.Errorf("a process starts with level %q", level)
		}
	}
}

// Fault F34: spans and points are dropped, and what the process does is as fast as without.
func TestCollectorThatIsDownOrSilentHasNoEffect(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = down.Close()
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	for name, addr := range map[string]net.Addr{"down": down.Addr(), "silent": silent.Addr()} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+addr.String())
			t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
			t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
			tel, err := telemetry.Setup(t.Context(), telemetry.Config{Service: "iam", Release: "1", Level: "error"})
			if err != nil {
				t.Fatal(err)
			}
			calls, err := otel.Meter("test").Int64Counter("calls")
			if err != nil {
				t.Fatal(err)
			}
			const many = 20_000 // ten times what the exporter's queue holds
			begun := time.Now()
			for range many {
				ctx, span := otel.Tracer("test").Start(t.Context(), "call")
				calls.Add(ctx, 1)
				span.End()
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("%d spans took %s", many, took)
			}
			scrape := httptest.NewRecorder()
			tel.Metrics.ServeHTTP(scrape, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
			if body := scrape.Body.String(); scrape.Code != 200 || !strings.Contains(body, "calls_total{") || !strings.Contains(body, " 20000") {
				t.Errorf("the scrape is %d:\n%s", scrape.Code, body)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			begun = time.Now()
			err = tel.Close(ctx)
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("ending took %s: %v", took, err)
			}
		})
	}
}

func TestExporterThatIsNotKnownIsRefused(t *testing.T) {
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	for _, signal := range []string{"TRACES", "METRICS"} {
		t.Run(signal, func(t *testing.T) {
			t.Setenv("OTEL_"+signal+"_EXPORTER", "smoke")
			_, err := telemetry.Setup(t.Context(), telemetry.Config{})
			if err == nil || !strings.Contains(err.Error(), "OTEL_"+signal+"_EXPORTER") || errors.Is(err, context.Canceled) {
				t.Errorf("error is %v", err)
			}
		})
	}
}
