// Notes is another product, as small as one can be: a store of notes with a database of its own, and a web front that reports for the
// set. It is carried out by the same fleet from a blueprint of its own (notes.yaml), which shows that nothing of fleet, of the registry
// and of the gateway knows the services of AccessOS.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/libs/release"
	"a3os.app/libs/workload"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		slog.Error("notes ends", "error", err)
		os.Exit(1)
	}
}

// later is a setting that a later release knows besides, and needs; that release has a component more as well (-X main.later=…).
var later string

// settings are all that the program knows.
var settings = []string{"NOTES_PLANE", "NOTES_TENANT", "NOTES_RELEASE", "NOTES_LISTEN", "NOTES_OPS_LISTEN", "NOTES_CERTIFICATES", "NOTES_TENANT_ROOTS", "NOTES_PLANE_ROOTS",
	"NOTES_DATABASE_FILE", "NOTES_SERVICE", "NOTES_PEERS", "NOTES_COOKIE_FILE", "NOTES_REGISTRY", "NOTES_OWNER_FILE", "NOTES_ROLES"}

// told refuses settings that the program doesn't know, as AccessOS does, and does without none that it needs.
func told(role string) error {
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "NOTES_") && name != later && !slices.Contains(settings, name) {
			return errors.New(name + " is not known: take it away")
		}
	}
	if later != "" && role != "migrate" && os.Getenv(later) == "" {
		return errors.New(later + " is missing")
	}
	return nil
}

func run(ctx context.Context, args []string) error {
	roles := map[string]func(context.Context) error{"migrate": migrate, "store": store, "web": web}
	if later != "" {
		roles["clock"] = clock
	}
	if len(args) == 0 || roles[args[0]] == nil { // what stands behind it is of no meaning
		return errors.New("it is called as notes migrate, store or web")
	}
	if err := told(args[0]); err != nil {
		return err
	}
	return roles[args[0]](ctx)
}

// clock says what time it is.
func clock(ctx context.Context) error {
	s, err := join("clock")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /clock", func(w http.ResponseWriter, _ *http.Request) { answer(w, time.Now(), nil) })
	return s.serve(ctx, mux)
}

func secret(variable string) (string, error) {
	text, err := os.ReadFile(os.Getenv(variable))
	return strings.TrimSpace(string(text)), err
}

// migrate makes the table, once, and lets the store write and read it.
func migrate(ctx context.Context) error {
	url, err := secret("NOTES_OWNER_FILE")
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, role, _ := strings.Cut(os.Getenv("NOTES_ROLES"), "writer=")
	role = pgx.Identifier{role}.Sanitize()
	_, err = conn.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS notes; CREATE TABLE IF NOT EXISTS notes.notes (at timestamptz NOT NULL DEFAULT now(), note text NOT NULL);
		GRANT USAGE ON SCHEMA notes TO `+role+`; GRANT INSERT, SELECT ON notes.notes TO `+role)
	return err
}

// set is who this process is, and how it reaches and is reached by others.
type set struct {
	source *workload.Source
	trust  *workload.TrustFiles
	self   workload.Identity
}

// join is who this process is: a service that the blueprint may call otherwise, NOTES_SERVICE.
func join(service string) (set, error) {
	tenant, err := id.ParseTenant(os.Getenv("NOTES_TENANT"))
	if err != nil {
		return set{}, err
	}
	s := set{self: workload.Identity{Plane: os.Getenv("NOTES_PLANE"), Tenant: tenant, Service: cmp.Or(os.Getenv("NOTES_SERVICE"), service)}}
	if s.trust, err = workload.OpenTrust(s.self.Plane, tenant, os.Getenv("NOTES_TENANT_ROOTS"), os.Getenv("NOTES_PLANE_ROOTS")); err != nil {
		return s, err
	}
	s.source, err = workload.OpenSource(os.Getenv("NOTES_CERTIFICATES"), s.self)
	return s, err
}

// serve serves over mutual TLS until ctx ends, with the process's health on a port of its own.
func (s set) serve(ctx context.Context, handler http.Handler) error {
	config, err := workload.ServerTLS(s.source, s.trust)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", os.Getenv("NOTES_LISTEN"))
	if err != nil {
		return err
	}
	health := http.NewServeMux()
	health.HandleFunc("GET /up", func(http.ResponseWriter, *http.Request) {})
	const patience = 10 * time.Second
	ops := &http.Server{Addr: os.Getenv("NOTES_OPS_LISTEN"), Handler: health, ReadHeaderTimeout: patience}
	api := &http.Server{Handler: handler, TLSConfig: config, ReadHeaderTimeout: patience}
	context.AfterFunc(ctx, func() {
		_ = api.Shutdown(context.WithoutCancel(ctx))
		_ = ops.Close()
	})
	failed := make(chan error, 2)
	go func() { failed <- ops.ListenAndServe() }()
	go func() { failed <- api.ServeTLS(l, "", "") }()
	if err := errors.Join(<-failed, <-failed); ctx.Err() == nil {
		return err
	}
	return nil
}

func store(ctx context.Context) error {
	s, err := join("store")
	if err != nil {
		return err
	}
	url, err := secret("NOTES_DATABASE_FILE")
	if err != nil {
		return err
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return err
	}
	config.MaxConns = 2
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /notes", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
		if err == nil {
			_, err = pool.Exec(r.Context(), "INSERT INTO notes.notes (note) VALUES ($1)", string(text))
		}
		answer(w, "kept", err)
	})
	mux.HandleFunc("GET /notes", func(w http.ResponseWriter, r *http.Request) {
		rows, err := pool.Query(r.Context(), "SELECT note FROM notes.notes ORDER BY at")
		var notes []string
		if err == nil {
			notes, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		answer(w, notes, err)
	})
	return s.serve(ctx, mux)
}

func answer(w http.ResponseWriter, what any, err error) {
	if err != nil {
		http.Error(w, "it could not be done", http.StatusInternalServerError)
		slog.Error("not done", "error", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(what)
}

// web hands requests to the store, and reports for the set.
func web(ctx context.Context) error {
	s, err := join("web")
	if err != nil {
		return err
	}
	if _, err := secret("NOTES_COOKIE_FILE"); err != nil {
		return err
	}
	other := s.self
	other.Service = "store"
	_, address, _ := strings.Cut(os.Getenv("NOTES_PEERS"), "store=")
	address, _, _ = strings.Cut(address, ",")
	config, err := workload.ClientTLS(s.source, s.trust, other)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
	}}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /up", func(w http.ResponseWriter, _ *http.Request) { answer(w, "up", nil) })
	mux.HandleFunc("/notes", func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), r.Method, "https://"+other.ServerName()+"/notes", r.Body)
		if err != nil {
			answer(w, nil, err)
			return
		}
		res, err := client.Do(req)
		if err != nil {
			answer(w, nil, err)
			return
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	})
	reports, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() {
		failed <- s.report(reports)
		cancel()
	}()
	err = s.serve(reports, mux)
	cancel()
	return errors.Join(err, <-failed)
}

// report says to the registry, as AccessOS's sets do, that all components serve, and which program they are: the web front's own.
func (s set) report(ctx context.Context) error {
	registry := workload.Identity{Plane: s.self.Plane, Service: "registry"}
	creds, err := workload.GRPCClientCredentials(s.source, s.trust, registry)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+os.Getenv("NOTES_REGISTRY"), grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer conn.Close()
	own, err := release.Own(os.Getenv("NOTES_RELEASE"))
	if err != nil {
		return err
	}
	names := []string{s.self.Service}
	for peer := range strings.SplitSeq(os.Getenv("NOTES_PEERS"), ",") {
		if name, _, _ := strings.Cut(peer, "="); name != s.self.Service {
			names = append(names, name)
		}
	}
	started := timestamppb.Now()
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		req := &registryv1.ReportRequest{}
		for _, name := range names {
			req.Components = append(req.Components, &registryv1.ComponentReport{Name: name, Health: registryv1.Health_HEALTH_SERVING, Release: own.String(), StartedAt: started})
		}
		if _, err := registryv1.NewReportServiceClient(conn).Report(ctx, req); err != nil && ctx.Err() == nil {
			slog.Warn("the report was not taken", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}
