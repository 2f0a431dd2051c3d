package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"
	"a3os.app/libs/workload"

	"a3os.app/services/iam/internal/revocation"
)

// Revocations implements RevocationService.
type Revocations struct{ feed *revocation.Feed }

// NewRevocations makes it.
func NewRevocations(feed *revocation.Feed) *Revocations { return &Revocations{feed: feed} }

// WatchRevocations implements RevocationServiceHandler.
func (s *Revocations) WatchRevocations(ctx context.Context, req *connect.Request[iamv1.WatchRevocationsRequest], stream *connect.ServerStream[iamv1.WatchRevocationsResponse]) error {
	return s.feed.Watch(ctx, req.Msg.GetAfterSequence(), stream.Send)
}

// Certificates implements CertificateService.
type Certificates struct {
	rights    Rights
	authority Authority
}

// Authority signs certificates: the tenant's issuing intermediate.
type Authority interface {
	IssueLeaf(csrDER []byte, identity workload.Identity, now time.Time) ([]byte, error)
}

// NewCertificates makes it.
func NewCertificates(rights Rights, authority Authority) *Certificates {
	return &Certificates{rights: rights, authority: authority}
}

// IssueCertificate implements CertificateServiceHandler. Whom the certificate is for is who calls, and nothing in the request.
func (s *Certificates) IssueCertificate(ctx context.Context, req *connect.Request[iamv1.IssueCertificateRequest]) (*connect.Response[iamv1.IssueCertificateResponse], error) {
	sc, err := scope.From(ctx)
	if err != nil {
		return nil, err
	}
	service, ok := strings.CutPrefix(string(sc.Principal), string(scope.Workload("")))
	if !ok {
		return nil, fault.New(fault.PermissionDenied, "certificates are for the services of the set")
	}
	if workload.Reserved(service) {
		return nil, fault.New(fault.PermissionDenied, "certificates of %s are the platform's to issue", service)
	}
	identity := workload.Identity{Plane: sc.Plane, Tenant: sc.Tenant, Service: service}
	chain, err := s.authority.IssueLeaf(req.Msg.GetCsr(), identity, s.rights.Now())
	if err != nil {
		return nil, fault.Wrap(fault.InvalidArgument, err, "the signing request can't be signed: send a PKCS #10 request with an ECDSA P-256 key, signed by it")
	}
	notAfter, err := expiry(chain)
	if err != nil {
		return nil, err
	}
	out := &iamv1.IssueCertificateResponse{CertificateChainPem: string(chain), NotAfter: timestamppb.New(notAfter)}
	err = s.rights.Tenant.Tenant(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return record.Append(ctx, tx, record.Event{Action: "iam.certificate.issued", Target: identity.String()})
	})
	return respond(out, err)
}

// expiry is when the first certificate of a chain expires.
func expiry(chain []byte) (time.Time, error) {
	block, _ := pem.Decode(chain)
	if block == nil {
		return time.Time{}, errors.New("the issued chain is not PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the issued certificate: %w", err)
	}
	return leaf.NotAfter, nil
}
