package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/fault"
	"a3os.app/libs/page"
	"a3os.app/libs/release"
	"a3os.app/services/registry/internal/store"
)

// Why a release is refused, so that callers can tell.
var (
	errUnsigned    = fault.Declare(fault.PermissionDenied, "RELEASE_UNSIGNED", "no key that this plane trusts signed the release")
	errOtherPlane  = fault.Declare(fault.PermissionDenied, "RELEASE_OF_ANOTHER_PLANE", "the release is of another plane")
	errVersionUsed = fault.Declare(fault.AlreadyExists, "RELEASE_VERSION_USED", "the version is that of another release")
)

type releases struct {
	registryv1.UnimplementedReleaseServiceServer
	registryv1.UnimplementedReleaseWriteServiceServer
	Config
}

// GetRelease answers one release.
func (s *releases) GetRelease(ctx context.Context, req *registryv1.GetReleaseRequest) (*registryv1.GetReleaseResponse, error) {
	res := &registryv1.GetReleaseResponse{}
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		row, err := findRelease(ctx, store.New(tx), req.GetName())
		if err != nil {
			return err
		}
		res.Release, err = releaseOf(row)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// findRelease reads a release by its name, or by a version that names one alone.
func findRelease(ctx context.Context, q *store.Queries, name string) (store.Release, error) {
	missing := fault.New(fault.NotFound, "there is no release %q: see fleet release list", name)
	if strings.Contains(name, "@") {
		row, err := q.ReleaseByName(ctx, name)
		if errors.Is(err, pgx.ErrNoRows) {
			return row, missing
		}
		return row, err
	}
	rows, err := q.ReleasesOfVersion(ctx, name)
	switch {
	case err != nil:
		return store.Release{}, err
	case len(rows) == 0:
		return store.Release{}, missing
	case len(rows) > 1:
		return store.Release{}, fault.New(fault.FailedPrecondition, "there are several releases of version %s: name one with its digest, as %s", name, rows[0].Name)
	}
	return rows[0], nil
}

// ListReleases pages through releases.
func (s *releases) ListReleases(ctx context.Context, req *registryv1.ListReleasesRequest) (*registryv1.ListReleasesResponse, error) {
	before := int64(math.MaxInt64)
	if err := readPageToken(req.GetPageToken(), &before); err != nil {
		return nil, err
	}
	size := page.Size(req.GetPageSize())
	res := &registryv1.ListReleasesResponse{}
	err := s.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		proto.Reset(res)
		rows, err := store.New(tx).ListReleases(ctx, store.ListReleasesParams{Before: before, Size: size + 1})
		if err != nil {
			return err
		}
		rows, res.NextPageToken = onePage(rows, size, func(r store.Release) string { return pageToken(r.Seq) })
		for _, row := range rows {
			r, err := releaseOf(row)
			if err != nil {
				return err
			}
			res.Releases = append(res.Releases, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// RegisterRelease keeps a release that somebody trusted has signed. One that is kept and whose signature nobody verifies any more gets that of this one.
func (s *releases) RegisterRelease(ctx context.Context, req *registryv1.RegisterReleaseRequest) (*registryv1.RegisterReleaseResponse, error) {
	opened, err := s.Releases.Open(ctx, req.GetEnvelope())
	switch {
	case errors.Is(err, release.ErrUnsigned):
		return nil, errUnsigned.With("%v", err)
	case errors.Is(err, release.ErrPlane):
		return nil, errOtherPlane.With("%v", err)
	case err != nil:
		return nil, fault.New(fault.InvalidArgument, "%v", err)
	}
	res := &registryv1.RegisterReleaseResponse{}
	err = s.change(ctx, func(ctx context.Context, ch change) error {
		name := opened.Name.String()
		added, err := ch.q.InsertRelease(ctx, store.InsertReleaseParams{
			Name: name, Version: opened.Name.Version, Payload: opened.Payload, Envelope: req.GetEnvelope(), KeyIds: opened.KeyIDs, Actor: ch.actor,
		})
		if err != nil {
			return fmt.Errorf("keep the release: %w", err)
		}
		row, err := ch.q.ReleaseByName(ctx, name)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return ch.versionUsed(ctx, opened.Name)
		case err != nil:
			return fmt.Errorf("read the release: %w", err)
		case !bytes.Equal(row.Payload, opened.Payload):
			return errVersionUsed.With("release %s is registered with other content (migrations, minimum version or blueprint): give the new one a version of its own", name)
		}
		_, believed := s.Releases.Open(ctx, row.Envelope)
		again := errors.Is(believed, release.ErrUnsigned)
		if again {
			row.Envelope, row.KeyIds = req.GetEnvelope(), opened.KeyIDs
			if err := ch.q.SignReleaseAgain(ctx, store.SignReleaseAgainParams{Name: name, Envelope: row.Envelope, KeyIds: row.KeyIds}); err != nil {
				return fmt.Errorf("keep the release's other signature: %w", err)
			}
		}
		if res.Release, err = releaseOf(row); err != nil {
			return err
		}
		switch {
		case again:
			return ch.log(ctx, "registry.release.signed_again", name, "signed by "+strings.Join(opened.KeyIDs, ", ")+": who signed it before isn't trusted any more")
		case added == 0:
			return nil
		}
		return ch.log(ctx, "registry.release.registered", name, "signed by "+strings.Join(opened.KeyIDs, ", "))
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

func (ch change) versionUsed(ctx context.Context, name release.Name) error {
	rows, err := ch.q.ReleasesOfVersion(ctx, name.Version)
	if err != nil || len(rows) == 0 {
		return errors.Join(fault.New(fault.Aborted, "another release is being registered; try again"), err)
	}
	return errVersionUsed.With("version %s is that of release %s: give the new one a version of its own", name.Version, rows[0].Name)
}

func releaseOf(row store.Release) (*registryv1.Release, error) {
	m := &registryv1.ReleaseManifest{}
	if err := proto.Unmarshal(row.Payload, m); err != nil {
		return nil, fmt.Errorf("read release %s: %w", row.Name, err)
	}
	return &registryv1.Release{Name: row.Name, Manifest: m, Envelope: row.Envelope, KeyIds: row.KeyIds, Actor: row.Actor, RegisteredAt: timeOf(row.RegisteredAt)}, nil
}
