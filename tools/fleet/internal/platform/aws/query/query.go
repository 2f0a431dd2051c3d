// Package query asks EC2 for security groups and CloudWatch for alarms, the one thing that fleet asks each. It speaks their query protocol and signs with the SDK's signer, for the
// SDK's own client of EC2 takes some minutes and three GB to compile, and the emulator doesn't speak what that of CloudWatch does. It relies on the configuration
// that it is given for credentials, endpoint and patience.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSecurityGroups.html
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html
package query

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	// mostAnswer is what a page of any of these answers has room in, in bytes.
	mostAnswer = 64 << 20
	within     = time.Minute
)

// service is one that speaks the protocol: its name in signatures, how its host is called in a Region, and the version of its API.
type service struct{ name, host, version string }

var (
	ec2        = service{"ec2", "ec2", "2016-11-15"}
	cloudWatch = service{"monitoring", "monitoring", "2010-08-01"}
)

// Group is a security group.
type Group struct {
	ID   string `xml:"groupId"`
	Name string `xml:"groupName"`
	Tags []tag  `xml:"tagSet>item"`
}

type tag struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

// Groups are the security groups with a tag, in EC2's order. What EC2 refuses is a [smithy.APIError].
func Groups(ctx context.Context, cfg aws.Config, key, value string) (out []Group, err error) {
	form := url.Values{"Action": {"DescribeSecurityGroups"}, "MaxResults": {"1000"}, "Filter.1.Name": {"tag:" + key}, "Filter.1.Value.1": {value}}
	for {
		var answer struct {
			Groups []Group `xml:"securityGroupInfo>item"`
			Next   string  `xml:"nextToken"`
		}
		if err := patiently(ctx, cfg, ec2, form, &answer); err != nil {
			return nil, err
		}
		for _, g := range answer.Groups {
			for _, t := range g.Tags {
				if t.Key == key && t.Value == value {
					out = append(out, g)
				}
			}
		}
		if answer.Next == "" {
			return out, nil
		}
		form.Set("NextToken", answer.Next)
	}
}

// Alarms are the names of alarms that begin so, in CloudWatch's order. What CloudWatch refuses is a [smithy.APIError].
func Alarms(ctx context.Context, cfg aws.Config, prefix string) (out []string, err error) {
	form := url.Values{"Action": {"DescribeAlarms"}, "MaxRecords": {"100"}, "AlarmNamePrefix": {prefix}, "AlarmTypes.member.1": {"MetricAlarm"}, "AlarmTypes.member.2": {"CompositeAlarm"}}
	for {
		var answer struct {
			Metric    []string `xml:"DescribeAlarmsResult>MetricAlarms>member>AlarmName"`
			Composite []string `xml:"DescribeAlarmsResult>CompositeAlarms>member>AlarmName"`
			Next      string   `xml:"DescribeAlarmsResult>NextToken"`
		}
		if err := patiently(ctx, cfg, cloudWatch, form, &answer); err != nil {
			return nil, err
		}
		for _, name := range slices.Concat(answer.Metric, answer.Composite) {
			if strings.HasPrefix(name, prefix) {
				out = append(out, name)
			}
		}
		if answer.Next == "" {
			return out, nil
		}
		form.Set("NextToken", answer.Next)
	}
}

// patiently calls as often as the configuration's own retryer has a call made, and reads the answer.
func patiently(ctx context.Context, cfg aws.Config, of service, form url.Values, answer any) error {
	var again aws.Retryer = retry.NewStandard()
	if cfg.Retryer != nil {
		again = cfg.Retryer()
	}
	for attempt := 1; ; attempt++ {
		text, err := call(ctx, cfg, of, form)
		if err == nil {
			if err := xml.Unmarshal(text, answer); err != nil {
				return fmt.Errorf("read the answer of %s: %w", of.name, err)
			}
			return nil
		}
		if most := again.MaxAttempts(); ctx.Err() != nil || most > 0 && attempt >= most || !again.IsErrorRetryable(err) {
			return err
		}
		wait, delayErr := again.RetryDelay(attempt, err)
		if delayErr != nil {
			return errors.Join(err, delayErr)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func call(ctx context.Context, cfg aws.Config, of service, form url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	at := "https://" + of.host + "." + cfg.Region + ".amazonaws.com"
	if cfg.BaseEndpoint != nil {
		at = *cfg.BaseEndpoint
	}
	form.Set("Version", of.version)
	body := []byte(form.Encode())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	keys, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, keys, r, hex.EncodeToString(sum[:]), of.name, cfg.Region, time.Now()); err != nil {
		return nil, fmt.Errorf("sign a call of %s: %w", of.name, err)
	}
	var client aws.HTTPClient = http.DefaultClient
	if cfg.HTTPClient != nil {
		client = cfg.HTTPClient
	}
	res, err := client.Do(r)
	if err != nil {
		return nil, &smithy.OperationError{ServiceID: of.name, OperationName: form.Get("Action"), Err: err}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, mostAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", of.name, err)
	}
	if res.StatusCode == http.StatusOK {
		return text, nil
	}
	// EC2 answers an error in a list, the others one.
	var refused struct {
		Code     string `xml:"Error>Code"`
		Message  string `xml:"Error>Message"`
		Code1    string `xml:"Errors>Error>Code"`
		Message1 string `xml:"Errors>Error>Message"`
	}
	if err := xml.Unmarshal(text, &refused); err != nil {
		refused.Message = "it answers no XML"
	}
	return nil, &smithy.OperationError{ServiceID: of.name, OperationName: form.Get("Action"), Err: &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: res},
		Err: &smithy.GenericAPIError{Code: cmp.Or(refused.Code, refused.Code1, http.StatusText(res.StatusCode)), Message: cmp.Or(refused.Message, refused.Message1)}}}
}
