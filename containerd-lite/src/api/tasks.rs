use super::{Api, done, lease, namespace, to_the_end};
use crate::containers;
use crate::error::{Error, Result as Answer};
use crate::events::now;
use crate::filters::{Filters, text};
use crate::tasks::checkpoint::Place;
use proto::containerd::task_types::Process;
use proto::containerd::tasks::{tasks_server::Tasks, *};
use proto::containerd::types::Metric;
use proto::task::api;
use tonic::{Request, Response, Status};

fn process(state: api::StateResponse) -> Process {
    Process {
        id: if state.exec_id.is_empty() { state.id.clone() } else { state.exec_id },
        container_id: state.id,
        pid: state.pid,
        status: state.status,
        stdin: state.stdin,
        stdout: state.stdout,
        stderr: state.stderr,
        terminal: state.terminal,
        exit_status: state.exit_status,
        exited_at: state.exited_at,
    }
}

impl Api {
    /// The container must be known in the namespace; that its id names nothing else is part of that.
    fn known(&self, namespace: &str, id: &str) -> Answer<()> {
        containers::get(&self.0.db, namespace, id).map(drop)
    }

    fn place(&self, namespace: &str, lease: Option<String>) -> Place {
        let (content, scratch) = (self.0.content.clone(), self.0.scratch.clone());
        Place { content, scratch, namespace: namespace.to_owned(), lease }
    }

    /// A call handed through to the task's shim.
    async fn relay<Q: prost::Message, A: prost::Message + Default>(
        &self,
        namespace: &str,
        id: &str,
        method: &str,
        request: Q,
    ) -> Result<Response<A>, Status> {
        self.known(namespace, id)?;
        done(self.0.tasks.call(namespace, id, method, &request).await?)
    }
}

#[tonic::async_trait]
impl Tasks for Api {
    async fn create(
        &self,
        request: Request<CreateTaskRequest>,
    ) -> Result<Response<CreateTaskResponse>, Status> {
        let namespace = namespace(&request)?;
        let place = self.place(&namespace, lease(&request));
        let request = request.into_inner();
        let container_id = request.container_id.clone();
        let container = containers::get(&self.0.db, &namespace, &container_id)?;
        let tasks = self.0.tasks.clone();
        let pid = to_the_end(async move { tasks.create(place, container, request).await }).await?;
        done(CreateTaskResponse { container_id, pid })
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        self.known(&namespace, &request.container_id)?;
        let tasks = self.0.tasks.clone();
        let work = async move { tasks.start(&namespace, &request.container_id, request.exec_id).await };
        done(StartResponse { pid: to_the_end(work).await? })
    }

    async fn delete(&self, request: Request<DeleteTaskRequest>) -> Result<Response<DeleteResponse>, Status> {
        let namespace = namespace(&request)?;
        let id = request.into_inner().container_id;
        self.known(&namespace, &id)?;
        let (tasks, task_id) = (self.0.tasks.clone(), id.clone());
        let exit = to_the_end(async move { tasks.delete(&namespace, &task_id).await }).await?;
        done(DeleteResponse { id, pid: exit.pid, exit_status: exit.exit_status, exited_at: exit.exited_at })
    }

    async fn delete_process(
        &self,
        request: Request<DeleteProcessRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        self.known(&namespace, &request.container_id)?;
        let exit = self.0.tasks.delete_process(&namespace, &request.container_id, &request.exec_id).await?;
        done(DeleteResponse {
            id: request.exec_id,
            pid: exit.pid,
            exit_status: exit.exit_status,
            exited_at: exit.exited_at,
        })
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        self.known(&namespace, &request.container_id)?;
        let state = self.0.tasks.state(&namespace, &request.container_id, &request.exec_id).await?;
        done(GetResponse { process: Some(process(state)) })
    }

    async fn list(&self, request: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        let namespace = namespace(&request)?;
        let states = self.0.tasks.states(&namespace).await;
        done(ListTasksResponse { tasks: states.into_iter().map(process).collect() })
    }

    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let KillRequest { container_id, exec_id, signal, all } = request.into_inner();
        let request = api::KillRequest { id: container_id.clone(), exec_id, signal, all };
        self.relay(&namespace, &container_id, "Kill", request).await
    }

    async fn exec(&self, request: Request<ExecProcessRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        self.known(&namespace, &request.container_id)?;
        let request = api::ExecProcessRequest {
            id: request.container_id,
            exec_id: request.exec_id,
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            spec: request.spec,
        };
        done(self.0.tasks.exec(&namespace, request).await?)
    }

    async fn resize_pty(&self, request: Request<ResizePtyRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let ResizePtyRequest { container_id, exec_id, width, height } = request.into_inner();
        let request = api::ResizePtyRequest { id: container_id.clone(), exec_id, width, height };
        self.relay(&namespace, &container_id, "ResizePty", request).await
    }

    async fn close_io(&self, request: Request<CloseIoRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let CloseIoRequest { container_id, exec_id, stdin } = request.into_inner();
        self.known(&namespace, &container_id)?;
        let request = api::CloseIoRequest { id: container_id, exec_id, stdin };
        done(self.0.tasks.close_io(&namespace, request).await?)
    }

    async fn pause(&self, request: Request<PauseTaskRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let id = request.into_inner().container_id;
        self.known(&namespace, &id)?;
        done(self.0.tasks.freeze(&namespace, &id, true).await?)
    }

    async fn resume(&self, request: Request<ResumeTaskRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let id = request.into_inner().container_id;
        self.known(&namespace, &id)?;
        done(self.0.tasks.freeze(&namespace, &id, false).await?)
    }

    async fn list_pids(
        &self,
        request: Request<ListPidsRequest>,
    ) -> Result<Response<ListPidsResponse>, Status> {
        let namespace = namespace(&request)?;
        let id = request.into_inner().container_id;
        let request = api::PidsRequest { id: id.clone() };
        let pids: Response<api::PidsResponse> = self.relay(&namespace, &id, "Pids", request).await?;
        done(ListPidsResponse { processes: pids.into_inner().processes })
    }

    async fn checkpoint(
        &self,
        request: Request<CheckpointTaskRequest>,
    ) -> Result<Response<CheckpointTaskResponse>, Status> {
        let namespace = namespace(&request)?;
        let place = self.place(&namespace, lease(&request));
        let CheckpointTaskRequest { container_id, options, .. } = request.into_inner();
        let spec = containers::get(&self.0.db, &namespace, &container_id)?.spec;
        let tasks = self.0.tasks.clone();
        let work = async move { tasks.checkpoint(place, &container_id, spec, options).await };
        done(CheckpointTaskResponse { descriptors: to_the_end(work).await? })
    }

    async fn update(&self, request: Request<UpdateTaskRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let UpdateTaskRequest { container_id, resources, annotations } = request.into_inner();
        let request = api::UpdateTaskRequest { id: container_id.clone(), resources, annotations };
        self.relay(&namespace, &container_id, "Update", request).await
    }

    async fn metrics(&self, request: Request<MetricsRequest>) -> Result<Response<MetricsResponse>, Status> {
        let namespace = namespace(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let wanted = |id: &str| {
            filters.matches(&|path: &[&str]| match path {
                ["id"] => text(id),
                ["namespace"] => text(&namespace),
                _ => None,
            })
        };
        let stats = self.0.tasks.stats(&namespace, wanted).await;
        let metric = |(id, data)| Metric { timestamp: Some(now()), id, data: Some(data) };
        done(MetricsResponse { metrics: stats.into_iter().map(metric).collect() })
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        self.known(&namespace, &request.container_id)?;
        let wait = self.0.tasks.wait(&namespace, &request.container_id, &request.exec_id);
        let exit = tokio::select! {
            exit = wait => exit?,
            // The task goes on; the client asks again after the restart.
            () = self.0.stopping.cancelled() => return Err(Error::unavailable("the daemon is stopping").into()),
        };
        done(WaitResponse { exit_status: exit.exit_status, exited_at: exit.exited_at })
    }
}
