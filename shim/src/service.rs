//! The task API, versions 2 and 3, and the sandbox API: decode, call, encode; nothing else.

use crate::container::{Handled, ReplyTo, Shim};
use crate::error::Error;
use prost::Message;
use proto::kind::ErrorKind;
use proto::task::{CONTROL_SERVICE, SANDBOX_SERVICE, SERVICE_V2, SERVICE_V3, api, gantry, sandbox};
use proto::ttrpc::Request;

/// Carries out one request, or starts to.
pub(crate) fn handle(shim: &mut Shim, request: &Request, reply: ReplyTo) {
    match dispatch(shim, request, reply) {
        Ok(Handled::Now(payload)) => shim.answers.push((reply, Ok(payload))),
        Ok(Handled::Later) => {}
        Err(error) => shim.answers.push((reply, Err(error))),
    }
}

fn dispatch(shim: &mut Shim, request: &Request, reply: ReplyTo) -> Result<Handled, Error> {
    if request.service == CONTROL_SERVICE && request.method == "Upgrade" {
        return shim.upgrade(&decode::<gantry::UpgradeRequest>(request)?.binary, Some(reply));
    }
    if request.service == CONTROL_SERVICE && request.method == "Descriptors" {
        decode::<gantry::DescriptorsRequest>(request)?;
        return Ok(shim.descriptors());
    }
    if request.service == SANDBOX_SERVICE {
        return sandbox(shim, request, reply);
    }
    let unimplemented = |text: String| Err(Error::new(ErrorKind::Unimplemented, text));
    if request.service != SERVICE_V2 && request.service != SERVICE_V3 {
        return unimplemented(format!("service {}: not implemented", request.service));
    }
    match request.method.as_str() {
        "State" => shim.state(&decode(request)?),
        "Create" => shim.create(decode(request)?, reply),
        "Start" => shim.start(&decode(request)?, reply),
        "Delete" => shim.delete(&decode(request)?, reply),
        "Pids" => shim.pids_of(&decode::<api::PidsRequest>(request)?.id, reply),
        "Pause" => shim.pause(&decode::<api::PauseRequest>(request)?.id, reply),
        "Resume" => shim.resume(&decode::<api::ResumeRequest>(request)?.id, reply),
        "Kill" => shim.kill(&decode(request)?, reply),
        "Exec" => shim.exec(decode(request)?),
        "ResizePty" => shim.resize(&decode(request)?),
        "CloseIO" => shim.close_io(&decode(request)?),
        "Checkpoint" => shim.checkpoint(&decode(request)?, reply),
        "Stats" => shim.stats(&decode::<api::StatsRequest>(request)?.id),
        "Update" => shim.update(&decode(request)?, reply),
        "Wait" => shim.wait(&decode(request)?, reply),
        "Connect" => Ok(shim.connect(&decode::<api::ConnectRequest>(request)?.id)),
        "Shutdown" => {
            decode::<api::ShutdownRequest>(request)?;
            Ok(shim.shut_down(reply))
        }
        method => unimplemented(format!("method {method} of {}: not implemented", request.service)),
    }
}

fn sandbox(shim: &mut Shim, request: &Request, reply: ReplyTo) -> Result<Handled, Error> {
    shim.changed = true;
    match request.method.as_str() {
        "CreateSandbox" => shim.create_sandbox(decode(request)?),
        "StartSandbox" => shim.start_sandbox(&decode::<sandbox::StartSandboxRequest>(request)?.sandbox_id),
        "Platform" => shim.platform(&decode::<sandbox::PlatformRequest>(request)?.sandbox_id),
        "StopSandbox" => shim.stop_sandbox(&decode::<sandbox::StopSandboxRequest>(request)?.sandbox_id),
        "WaitSandbox" => {
            shim.wait_sandbox(&decode::<sandbox::WaitSandboxRequest>(request)?.sandbox_id, reply)
        }
        "SandboxStatus" => shim.sandbox_status(&decode::<sandbox::SandboxStatusRequest>(request)?.sandbox_id),
        "SandboxMetrics" => {
            shim.sandbox_metrics(&decode::<sandbox::SandboxMetricsRequest>(request)?.sandbox_id)
        }
        "PingSandbox" => shim.ping_sandbox(&decode::<sandbox::PingRequest>(request)?.sandbox_id),
        "ShutdownSandbox" => {
            shim.shut_down_sandbox(&decode::<sandbox::ShutdownSandboxRequest>(request)?.sandbox_id)
        }
        method => {
            let text = format!("method {method} of {SANDBOX_SERVICE}: not implemented");
            Err(Error::new(ErrorKind::Unimplemented, text))
        }
    }
}

fn decode<M: Message + Default>(request: &Request) -> Result<M, Error> {
    M::decode(request.payload.as_slice())
        .map_err(|e| Error::invalid(format!("unmarshal {} request: {e}: invalid argument", request.method)))
}
