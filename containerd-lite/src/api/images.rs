use super::{Api, done, lease, mask, namespace};
use crate::error::Error;
use crate::images;
use proto::containerd::images::{images_server::Images, *};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Images for Api {
    async fn get(&self, request: Request<GetImageRequest>) -> Result<Response<GetImageResponse>, Status> {
        let namespace = namespace(&request)?;
        let image = images::get(&self.0.db, &namespace, &request.into_inner().name)?;
        done(GetImageResponse { image: Some(image) })
    }

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let namespace = namespace(&request)?;
        let images = images::list(&self.0.db, &namespace, &request.into_inner().filters)?;
        done(ListImagesResponse { images })
    }

    async fn create(
        &self,
        request: Request<CreateImageRequest>,
    ) -> Result<Response<CreateImageResponse>, Status> {
        let (namespace, lease) = (namespace(&request)?, lease(&request));
        let image = request.into_inner().image.ok_or_else(|| Error::invalid("image is missing"))?;
        let image = images::create(&self.0.db, &namespace, image, lease).await?;
        let event = ImageCreate { name: image.name.clone(), labels: image.labels.clone() };
        self.0.events.publish(&namespace, "/images/create", &event);
        done(CreateImageResponse { image: Some(image) })
    }

    async fn update(
        &self,
        request: Request<UpdateImageRequest>,
    ) -> Result<Response<UpdateImageResponse>, Status> {
        let (namespace, lease) = (namespace(&request)?, lease(&request));
        let request = request.into_inner();
        let image = request.image.ok_or_else(|| Error::invalid("image is missing"))?;
        let image = images::update(&self.0.db, &namespace, image, mask(request.update_mask), lease).await?;
        let event = ImageUpdate { name: image.name.clone(), labels: image.labels.clone() };
        self.0.events.publish(&namespace, "/images/update", &event);
        self.0.collector.schedule();
        done(UpdateImageResponse { image: Some(image) })
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Result<Response<()>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        images::delete(&self.0.db, &namespace, &request.name, request.target).await?;
        self.0.events.publish(&namespace, "/images/delete", &ImageDelete { name: request.name });
        if request.sync {
            self.0.collector.collect().await?;
        } else {
            self.0.collector.schedule();
        }
        done(())
    }
}
