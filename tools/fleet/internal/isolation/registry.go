package isolation

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/workload"
)

// atRegistry makes one call to the registry with a certificate.
func (w *World) atRegistry(pair func() (*tls.Certificate, error), call func(ctx context.Context, conn *grpc.ClientConn) error) ask {
	return func(ctx context.Context) answer {
		own, err := pair()
		if err != nil {
			return unclearWith("%v", err)
		}
		cfg := &tls.Config{RootCAs: w.PlaneRoots, ServerName: w.RegistryID.ServerName(), MinVersion: tls.VersionTLS13,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }}
		said := once(ctx, w.Registry, cfg, call)
		// As with HTTP: the server may have hung up on a certificate before its alert was read.
		const tries = 5
		for try := 1; try < tries && grpcHungUp(said); try++ {
			said = once(ctx, w.Registry, cfg, call)
		}
		switch said.Code() {
		case codes.PermissionDenied, codes.Unauthenticated:
			return refusedWith("%s: %s", said.Code(), said.Message())
		case codes.OK, codes.InvalidArgument, codes.NotFound:
			// What a request is judged by its content for was let in.
			return openedWith("%s", said.Code())
		case codes.Unavailable:
			if strings.Contains(said.Message(), "remote error: tls:") || strings.Contains(said.Message(), "authentication handshake failed") {
				return refusedWith("TLS handshake refused")
			}
			if grpcHungUp(said) {
				return refusedWith("the server hung up without an answer, %d times", tries)
			}
		default:
		}
		return unclearWith("%s: %s", said.Code(), said.Message())
	}
}

// once is a call on a connection of its own.
func once(ctx context.Context, address string, cfg *tls.Config, call func(ctx context.Context, conn *grpc.ClientConn) error) *status.Status {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(cfg.Clone())))
	if err != nil {
		return status.Convert(err)
	}
	defer conn.Close()
	return status.Convert(call(ctx, conn))
}

// grpcHungUp says that the other side closed a connection that it had taken. gRPC keeps the cause as text alone.
func grpcHungUp(said *status.Status) bool {
	text := said.Message()
	return said.Code() == codes.Unavailable && (strings.Contains(text, "broken pipe") || strings.Contains(text, "connection reset") ||
		strings.Contains(text, "EOF") || strings.Contains(text, "closing transport") || strings.Contains(text, "error reading server preface"))
}

func certificateOf(source *workload.Source) func() (*tls.Certificate, error) {
	return func() (*tls.Certificate, error) { return source.GetCertificate(nil) }
}

// harmless is a report that no registry takes, whoever sends it: one that is let in is told so.
func harmless(ctx context.Context, conn *grpc.ClientConn) error {
	const more = 65 // than a report may have
	req := &registryv1.ReportRequest{}
	for range more {
		req.Components = append(req.Components, &registryv1.ComponentReport{})
	}
	_, err := registryv1.NewReportServiceClient(conn).Report(ctx, req)
	return err
}

// reports of one set in the name of another.
func (w *World) reports(from, at *Set) []attempt {
	if w.Registry == "" {
		return nil
	}
	var out []attempt
	for _, c := range at.Components {
		if !c.Reports {
			continue
		}
		for _, holder := range from.Components {
			if holder.Authority == "" {
				continue
			}
			forged := func() (*tls.Certificate, error) { return forge(holder.Authority, identity(w, at, c)) }
			out = append(out, attempt{wall: wallRegistry, from: from.Name() + "/" + holder.Name, at: "registry",
				what: "report as " + at.Name() + "/" + c.Name + ", with a certificate that its own authority issued", ask: w.atRegistry(forged, harmless),
				control: &control{what: at.Name() + "/" + c.Name + "'s own certificate", ask: w.atRegistry(certificateOf(c.Source), harmless)}})
		}
	}
	return out
}

// operatorCalls are what only the plane's operator may ask, asked by a set.
func (w *World) operatorCalls(s *Set) []attempt {
	if w.Registry == "" {
		return nil
	}
	list := func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := registryv1.NewTenantServiceClient(conn).ListTenants(ctx, &registryv1.ListTenantsRequest{PageSize: 1})
		return err
	}
	ctl := &control{what: "the plane's operator", ask: w.atRegistry(certificateOf(w.Operator), list)}
	var out []attempt
	for _, c := range s.Components {
		out = append(out, attempt{wall: wallRegistry, from: s.Name() + "/" + c.Name, at: "registry", what: fmt.Sprintf("list the tenants of plane %s", w.Plane),
			ask: w.atRegistry(certificateOf(c.Source), list), control: ctl})
	}
	return out
}
